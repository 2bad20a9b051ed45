package resp_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/api/resp"
)

// keyring returns API keys: web reads and writes, reader reads, and team may use counters that begin with team:. The token of a key is
// token- and its name.
func keyring(t *testing.T, rate int) *auth.Keyring {
	t.Helper()
	var list []string
	for _, k := range []struct{ name, rest string }{{"web", "read+write"}, {"reader", "read"}, {"team", "read+write:team:"}} {
		list = append(list, fmt.Sprintf("%s:%x:%s", k.name, sha256.Sum256([]byte("token-"+k.name)), k.rest))
	}
	keys, err := auth.ParseList(strings.Join(list, ","))
	require.NoError(t, err)
	ring, err := auth.New(auth.Options{Keys: keys, OperationsPerSec: rate})
	require.NoError(t, err)
	return ring
}

func TestWithKeysNothingIsAnsweredBeforeAUTH(t *testing.T) {
	t.Parallel()
	w := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)}).dial(t)
	for _, command := range []string{"INCR a", "PING", "INFO", "COMMAND", "MULTI", "SCAN 0", "CLIENT ID", "SELECT 0"} {
		require.Equal(t, "-NOAUTH Authentication required.", w.one(command), command)
	}
	require.Contains(t, w.one("HELLO 3"), "-NOAUTH HELLO must be called with the client already authenticated")
	for _, command := range []string{"AUTH wrong", "AUTH web token-reader", "AUTH nobody token-web", "AUTH default wrong", "HELLO 3 AUTH web wrong"} {
		require.Equal(t, "-WRONGPASS invalid username-password pair or user is disabled.", w.one(command), command)
	}
	require.Equal(t, "+OK", w.one("AUTH token-web"))
	require.Equal(t, ":1", w.one("INCR a"))
	require.Equal(t, "-WRONGPASS invalid username-password pair or user is disabled.", w.one("AUTH wrong"))
	require.Equal(t, ":1", w.one("INCR a"), "the key stays")
	require.Equal(t, "+RESET", w.one("RESET"))
	require.Equal(t, "-NOAUTH Authentication required.", w.one("INCR a"))
	require.Equal(t, "+OK", w.one("AUTH web token-web"))
	require.Equal(t, "+OK", w.one("AUTH default token-web"))
}

func TestKeyMayUseItsScopesAndPrefixOnly(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)})
	reader := b.dial(t)
	require.Contains(t, reader.one("HELLO 2 AUTH reader token-reader"), "proto :2")
	require.Equal(t, []string{"1", "-NOPERM forbidden: the API key reader lacks the scope write, which 'incr' needs"}, reader.do("GET a", "INCR a"))
	require.Contains(t, reader.one("AW.IDEM x INCR a"), "-NOPERM")

	team := b.dial(t)
	require.Equal(t, "+OK", team.one("AUTH token-team"))
	outside := `-NOPERM forbidden: the API key team may only use counters whose key begins with "team:"`
	require.Equal(t, []string{":1", outside, outside, outside, ":1"},
		team.do("INCR team:a", "INCR a", "MGET team:a a", "MSET team:a 1 a 2", "INCR team:a"))
	require.Equal(t, []string{"+OK", "+QUEUED", outside, "-EXECABORT Transaction discarded because of previous errors."},
		team.do("MULTI", "INCR team:a", "INCR a", "EXEC"))
}

func TestWithoutKeysAUTHIsIgnored(t *testing.T) {
	t.Parallel()
	w := serve(t, always(ok), resp.Options{}).dial(t)
	require.Equal(t, []string{"+OK", "+OK", ":1"}, w.do("AUTH any", "AUTH default any", "INCR a"))
}

func TestRemovedKeyIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	keys := keyring(t, 0)
	w := serve(t, always(ok), resp.Options{Keys: keys}).dial(t)
	require.Equal(t, []string{"+OK", ":1"}, w.do("AUTH token-web", "INCR a"))
	require.NoError(t, keys.Replace(nil))
	require.Equal(t, "-NOAUTH Authentication required.", w.one("INCR a"))
}

// AUTH is refused in a transaction, so that must end with the key.
func TestKeyThatIsRemovedDuringATransactionEndsIt(t *testing.T) {
	t.Parallel()
	keys := keyring(t, 0)
	w := serve(t, always(ok), resp.Options{Keys: keys}).dial(t)
	require.Equal(t, []string{"+OK", "+OK", "+QUEUED"}, w.do("AUTH token-web", "MULTI", "INCR a"))
	require.NoError(t, keys.Replace(nil))
	require.Equal(t, []string{
		"-NOAUTH Authentication required.", "-WRONGPASS invalid username-password pair or user is disabled.",
	}, w.do("EXEC", "AUTH token-web"))
}

func TestPipelineThatExceedsTheRateIsNotApplied(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{Keys: keyring(t, 2)}).dial(t) // a burst of 4
	require.Equal(t, "+OK", w.one("AUTH token-web"))
	for _, reply := range w.do("INCR a", "INCR a", "INCR a", "INCR a", "INCR a") {
		require.Contains(t, reply, "-ERR rate_limited: the request has 5 operations")
	}
	require.Empty(t, r.all())
	require.Equal(t, []string{":101", ":102"}, w.do("INCR a", "INCR a"))
}

// The second request of the pipeline would fit.
func TestRestOfAPipelineThatExceedsTheRateIsNotApplied(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{Keys: keyring(t, 2)}).dial(t) // a burst of 4
	require.Equal(t, "+OK", w.one("AUTH token-web"))
	replies := w.do("MSET a 1 b 1 c 1 d 1 e 1", "PING", "SET f 1", "PING")
	require.Contains(t, replies[0], "-ERR rate_limited")
	require.Contains(t, replies[2], "-ERR rate_limited")
	require.Empty(t, r.all())
}

func TestTransactionEndsIfItsKeyLosesRights(t *testing.T) {
	t.Parallel()
	keys := keyring(t, 0)
	var r recorder
	w := serve(t, &r, resp.Options{Keys: keys}).dial(t)
	require.Equal(t, []string{"+OK", "+OK", "+QUEUED"}, w.do("AUTH token-web", "MULTI", "SET a 1"))
	list, err := auth.ParseList(fmt.Sprintf("web:%x:read+write:team:", sha256.Sum256([]byte("token-web"))))
	require.NoError(t, err)
	require.NoError(t, keys.Replace(list))
	require.Equal(t, []string{"-EXECABORT Transaction discarded because of previous errors.", "+OK", "+QUEUED", "*1 :101"},
		w.do("EXEC", "MULTI", "INCR team:a", "EXEC"))
	require.Equal(t, []string{"increment team:a 1"}, r.all())
}

func TestRESETLeavesTimeForAnotherAUTH(t *testing.T) {
	t.Parallel()
	const login = 300 * time.Millisecond
	w := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)}, resp.WithLimits(resp.Limits{Login: login})).dial(t)
	began := time.Now()
	require.Equal(t, "+OK", w.one("AUTH token-web"))
	for time.Since(began) < login {
		require.Equal(t, "+PONG", w.one("PING"))
	}
	require.Equal(t, "+RESET", w.one("RESET"))
	require.Equal(t, "+OK", w.one("AUTH token-web"))
}

func TestNamesOfUnknownCommandsAreNotKeptBeforeAUTH(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)})
	w := b.dial(t)
	w.write("hunter2\r\nother\r\n")
	require.Contains(t, w.read(), "-ERR unknown command")
	require.Contains(t, w.read(), "-ERR unknown command")
	require.Equal(t, 1, b.series(t, "afterwrite_resp_unknown_commands_total"))
	require.InDelta(t, 2, b.metric(t, "afterwrite_resp_unknown_commands_total"), 0)
}

func TestConnectionThatDoesNotAuthenticateEnds(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)}, resp.WithLimits(resp.Limits{Login: 200 * time.Millisecond}))
	w := b.dial(t)
	w.write(encode("PING") + "*1\r\n")
	require.Equal(t, []string{"-NOAUTH Authentication required."}, w.ended())
	w = b.dial(t)
	w.write(encode("EXISTS", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"))
	require.Equal(t, []string{"-ERR Protocol error: invalid multibulk length: a command may have 10 arguments here"}, w.ended())
}

func TestGoRedisSendsItsPasswordAsAKey(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{Keys: keyring(t, 0)})
	for _, protocol := range []int{2, 3} {
		c := b.client(t, func(o *redis.Options) { o.Protocol, o.Password = protocol, "token-web" })
		require.NoError(t, c.Incr(t.Context(), "a").Err())
		c = b.client(t, func(o *redis.Options) { o.Protocol, o.Username, o.Password = protocol, "web", "wrong" })
		require.ErrorContains(t, c.Incr(t.Context(), "a").Err(), "WRONGPASS")
	}
}
