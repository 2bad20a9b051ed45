package command

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestHistoryShowsOperationsBeforeAndAfterTheirFlush(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	recording := cache.New(b.Redis, cache.Options{
		Shards: b.Config.Shards, CleanTTL: time.Hour, History: func(counter.Key) bool { return true },
	})
	w := recording.NewWriter(func() bool { return true })
	defer w.Close()
	set := counter.Operation{
		Key: "likes:7", Kind: counter.Set, Amount: 7, Origin: &counter.Origin{Caller: "web", Request: "r1", Note: "a note"},
	}
	add := counter.Operation{Key: "likes:7", Kind: counter.Increment, Amount: 1}
	for _, o := range w.Do(t.Context(), []cache.Write{{Operation: set, Blind: true}, {Operation: add, Blind: true}}) {
		require.NoError(t, o.Err)
	}
	require.Regexp(t, `(?m)^1 +\S+Z +set +7 +7 +false +web +r1 +a note$`, b.succeeds(t, "history", "likes:7"))
	b.succeeds(t, "worker", "--drain", "--timeout", "50s")
	out := b.succeeds(t, "history", "--limit", "1", "likes:7")
	require.Regexp(t, `(?m)^1 +\S+Z +set +7 +7 +true +web +r1 +a note$`, out)
	require.Contains(t, out, "--after 1 shows them")
	require.Regexp(t, `(?m)^2 +\S+Z +increment +1 +8 +true +- +- +-$`, b.succeeds(t, "history", "--after", "1", "likes:7"))
	require.Equal(t, exitUsage, runHere(t.Context(), "history", "--limit", "0", "likes:7").status)

	require.Regexp(t, `(?m)^whole +1 +`, b.succeeds(t, "verify", "--history"))
	require.NotContains(t, b.succeeds(t, "verify", "--json"), `"history"`)
	p := start(t, append(b.env, "AFTERWRITE_HISTORY=likes:*"), "verify", "--history", "--repair")
	require.Zero(t, p.end(t))
	db, err := sql.Open("postgres", b.Config.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), "DELETE FROM afterwrite.operations WHERE version = 2")
	require.NoError(t, err)
	p = start(t, append(b.env, "AFTERWRITE_HISTORY=likes:*"), "verify", "--history", "--repair")
	require.Equal(t, exitFailure, p.end(t))
	require.Regexp(t, `(?m)^likes:7 +row +the last record has version 1, and the row has 2$`, p.text.String())
	require.Contains(t, p.errs.String(), "1 differences are left")
}
