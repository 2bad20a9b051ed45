package command

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
)

// deadBundle is servers with dead letters on them, and what to run the program with.
type deadBundle struct {
	*process.Servers

	env []string
}

func setupDead(t *testing.T) *deadBundle {
	t.Helper()
	env := servers(t)
	c, err := config.FromMap(environMap(env))
	require.NoError(t, err)
	s, err := process.Connect(c, slog.New(slog.DiscardHandler), process.Pools{Redis: 4, Postgres: 2})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return &deadBundle{Servers: s, env: env}
}

// bury makes keys dead, with a value of 10 in Redis.
func (b *deadBundle) bury(t *testing.T, keys ...counter.Key) {
	t.Helper()
	writer := b.Cache.NewWriter(func() bool { return true })
	defer writer.Close()
	for _, key := range keys {
		op := counter.Operation{Key: key, Kind: counter.Set, Amount: 10}
		outcome := writer.Do(t.Context(), []cache.Write{{Operation: op, Blind: true}})
		require.NoError(t, outcome[0].Err)
		snapshot, err := b.Cache.Read(t.Context(), b.Cache.Shard(key), []counter.Key{key})
		require.NoError(t, err)
		rows, err := b.Store.Read(t.Context(), []counter.Key{key})
		require.NoError(t, err)
		row, found := rows[key]
		_, err = b.Cache.Hydrate(t.Context(), []cache.Base{{Key: key, Row: row, Found: found, Token: snapshot.Token}})
		require.NoError(t, err)
		note := cache.Dead{Reason: "violates\n\"small\"", Since: time.Unix(1_700_000_000, 0), Attempts: 8}
		epoch, err := b.Cache.Seal(t.Context(), b.Cache.Shard(key), cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		require.Equal(t, 1, epoch.Keys)
		require.NoError(t, b.Cache.Bury(t.Context(), key, note))
		_, done, err := b.Cache.Commit(t.Context(), &epoch)
		require.NoError(t, err)
		require.True(t, done)
		require.NoError(t, b.Cache.Release(t.Context(), b.Cache.Shard(key), "test"))
	}
}

// succeeds runs the program and returns what it printed.
func (b *deadBundle) succeeds(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, b.env, args...)
	require.Equal(t, exitOK, p.end(t), p.out.String())
	return p.text.String()
}

func (b *deadBundle) fails(t *testing.T, args ...string) string {
	t.Helper()
	return start(t, b.env, args...).oneLine(t)
}

func TestDeadListShowsWhatBothSidesHave(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	require.Empty(t, b.succeeds(t, "dead", "list"))
	require.Equal(t, "[]\n", b.succeeds(t, "dead", "list", "--json"))
	_, err := b.Store.Upsert(t.Context(), []counter.Row{{Key: "b", Value: 7, Version: 3}})
	require.NoError(t, err)
	b.bury(t, "a", "b")

	table := b.succeeds(t, "dead", "list")
	require.Regexp(t, `(?m)^KEY +ATTEMPTS +SINCE +REDIS +POSTGRES +REASON$`, table)
	require.Regexp(t, `(?m)^a +8 +2023-11-14T22:13:20Z +10 \(version 1\) +none +violates "small"$`, table)
	require.Regexp(t, `(?m)^b +8 +2023-11-14T22:13:20Z +10 \(version 4\) +7 \(version 3\) +violates "small"$`, table)

	var letters []operate.DeadLetter
	require.NoError(t, json.Unmarshal([]byte(b.succeeds(t, "dead", "list", "--json")), &letters))
	require.Len(t, letters, 2)
	p := start(t, b.env, "dead", "list", "--limit", "1", "--json")
	require.Equal(t, exitOK, p.end(t))
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &letters))
	require.Len(t, letters, 1)
	require.Contains(t, p.errs.String(), "1 of 2 dead letters")
}

func TestDeadListAndShowWorkWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a")
	env := []string{"REDIS_URL=" + environMap(b.env)["REDIS_URL"], noPostgres}
	for _, args := range [][]string{{"dead", "list"}, {"dead", "show", "a"}} {
		p := start(t, env, args...)
		require.Equal(t, exitOK, p.end(t), p.out.String())
		require.Contains(t, p.text.String(), "?")
		require.Contains(t, p.errs.String(), "postgres did not answer")
		require.NotContains(t, p.out.String(), "hunter2")
	}
	require.Contains(t, start(t, env, "dead", "discard", "--yes", "a").oneLine(t), "nothing was discarded")
}

func TestDeadShowSaysEverything(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a")
	text := b.succeeds(t, "dead", "show", "a")
	for _, line := range []string{`key +a`, `shard +11`, `attempts +8`, `redis +10 \(version 1\)`, `postgres +none`, `task +none: .*`} {
		require.Regexp(t, "(?m)^"+line+"$", text)
	}
	var shown operate.Shown
	require.NoError(t, json.Unmarshal([]byte(b.succeeds(t, "dead", "show", "--json", "a")), &shown))
	require.Equal(t, operate.Stored{State: operate.StateValue, Value: 10, Version: 1}, shown.Redis)
	require.Nil(t, shown.Retry)
}

func TestAKeyThatIsNotDeadIsAnErrorThatSaysWhereToLook(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	for _, args := range [][]string{{"show", "a"}, {"redrive", "a"}, {"discard", "--yes", "a"}} {
		require.Contains(t, b.fails(t, append([]string{"dead"}, args...)...), "afterwrite dead list")
	}
	require.Contains(t, b.fails(t, "dead", "show", "a\nb"), "control character")
}

func TestDeadRedriveSaysHowManyAndThatAWorkerMustRun(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a", "b", "c")
	p := start(t, b.env, "dead", "redrive", "a", "x")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.text.String(), "redriven: 1, but no worker is running")
	require.Contains(t, p.errs.String(), "not dead, so unchanged: x")

	require.Contains(t, b.succeeds(t, "dead", "redrive", "--all"), "redriven: 2,")
	require.Equal(t, "redriven: none\n", b.succeeds(t, "dead", "redrive", "--all"))
}

func TestDeadRedriveWaits(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a", "b")
	p := start(t, b.env, "dead", "redrive", "a", "--wait", "--timeout", "10ms")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.text.String(), "still waiting: 1: a")

	w := start(t, append([]string{"AFTERWRITE_WORKER_ADDR=127.0.0.1:0"}, b.env...), "worker")
	require.Contains(t, b.succeeds(t, "dead", "redrive", "--all", "--wait"), "in postgres: 1: b")
	w.stop(t)
}

func TestDeadDiscardShowsWhatIsDroppedAndAsks(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	_, err := b.Store.Upsert(t.Context(), []counter.Row{{Key: "a", Value: 7, Version: 3}})
	require.NoError(t, err)
	b.bury(t, "a")
	p := start(t, b.env, "dead", "discard", "a")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.text.String(), "dropped, from redis:  10 (version 4)\nkept, from postgres:  7 (version 3)\n")
	require.Contains(t, p.errs.String(), "add --yes")
	require.Contains(t, b.succeeds(t, "dead", "list"), "10 (version 4)", "it is still there")

	require.Contains(t, b.succeeds(t, "dead", "discard", "a", "--yes"), "discarded: the counter has postgres's state: 7 (version 5)")
	require.Empty(t, b.succeeds(t, "dead", "list"))
}

func TestOnlyYesIsAgreed(t *testing.T) {
	t.Parallel()
	require.NoError(t, agreed(strings.NewReader("yes\nno\n")))
	for _, answer := range []string{"", "\n", "y\n", "no\n", "yess"} {
		require.Error(t, agreed(strings.NewReader(answer)), "%q", answer)
	}
}

func TestDeadArgumentsThatMakeNoSenseAreAUsageError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"dead"},
		{"dead", "show"},
		{"dead", "redrive"},
		{"dead", "redrive", "a", "--all"},
		{"dead", "list", "--limit=-1"},
		{"dead", "redrive", "--all", "--timeout", "0s"},
		{"dead", "redrive", "--all", "--timeout", "2h"},
		{"dead", "discard", "a", "b"},
	} {
		r := runHere(t.Context(), args...)
		require.Equal(t, exitUsage, r.status, "%v", args)
		require.Empty(t, r.stdout)
	}
	for _, name := range []string{"list", "show", "redrive", "discard"} {
		r := runHere(t.Context(), "dead", name, "--help")
		require.Equal(t, exitOK, r.status)
		require.Contains(t, r.stdout, "Example:\n\n    afterwrite dead "+name)
		require.Contains(t, r.stdout, "REDIS_URL")
	}
}

func TestDeadCommandsRefuseOtherSettings(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a")
	require.NoError(t, b.Cache.CheckMeta(t.Context()))
	p := start(t, append([]string{"AFTERWRITE_SHARDS=8"}, b.env...), "dead", "list")
	require.Contains(t, p.oneLine(t), "AFTERWRITE_SHARDS=16")
	require.Contains(t, start(t, nil, "dead", "list").oneLine(t), "REDIS_URL is not set")
}

func TestLongListsOfKeysAreCutInALine(t *testing.T) {
	t.Parallel()
	keys := make([]counter.Key, 25)
	for i := range keys {
		keys[i] = counter.Key(strconv.Itoa(i))
	}
	require.True(t, strings.HasSuffix(named(keys), ", 19 and 5 more"))
	require.Equal(t, "0, 1", named(keys[:2]))
	require.Equal(t, "a b c", oneLine("a\nb\x1b\u009bc"))
}

func TestTheAPIOpensDeadLettersToTheAdminToken(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "a")
	const token = "correct-horse-battery"
	ask := func(p *running, authorization string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, p.url(t)+"/v1/admin/dead/a", http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Authorization", authorization)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode
	}

	closed := start(t, b.env, "api")
	require.Equal(t, http.StatusNotFound, ask(closed, "Bearer "+token))
	closed.stop(t)

	open := start(t, append([]string{"AFTERWRITE_ADMIN_TOKEN=" + token, "AFTERWRITE_LOG_LEVEL=debug"}, b.env...), "api")
	require.Equal(t, http.StatusUnauthorized, ask(open, "Bearer wrong"))
	require.Equal(t, http.StatusOK, ask(open, "Bearer "+token))
	require.Empty(t, b.succeeds(t, "dead", "list"))
	open.stop(t)
	require.NotContains(t, open.out.String(), token)

	line := start(t, append([]string{"AFTERWRITE_ADMIN_TOKEN=hunter2"}, b.env...), "api").oneLine(t)
	require.Contains(t, line, "AFTERWRITE_ADMIN_TOKEN must have at least 16 characters")
	require.NotContains(t, line, "hunter2")
}
