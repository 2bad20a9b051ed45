package resp_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
)

func TestTransactionIsOneRequestInOrder(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	require.Equal(t, []string{":101", "+OK", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "*4 +OK :101 :101 100", ":101"},
		w.do("INCR z", "MULTI", "SET a 1", "INCR b", "INCR b", "GETSET a 5", "EXEC", "INCR z"))
	require.Equal(t, []string{"increment z 1", "set a 1, increment b 1, increment b 1, get a 0, set a 5", "increment z 1"}, r.all())
}

func TestTransactionWithARefusedCommandIsNotCarriedOut(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	for _, refused := range []string{
		"NOPE", "INCR", "INCRBY a x", "SET a 1 EX 5", "PING", "SCAN 0", "WATCH a", "WAIT 1 1", "MULTI", "AUTH x", "AW.WAIT a 1", "UNWATCH",
	} {
		replies := w.do("MULTI", "INCR a", refused, "INCR a", "EXEC")
		require.True(t, strings.HasPrefix(replies[2], "-ERR "), replies)
		require.Equal(t, "-EXECABORT Transaction discarded because of previous errors.", replies[4], refused)
	}
	require.Empty(t, r.all())
}

func TestTransactionEndsWithDISCARDAndRESET(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	require.Equal(t, []string{"+OK", "+QUEUED", "+OK", "-ERR EXEC without MULTI"}, w.do("MULTI", "INCR a", "DISCARD", "EXEC"))
	require.Equal(t, []string{"+OK", "+QUEUED", "+RESET", "-ERR DISCARD without MULTI"}, w.do("MULTI", "INCR a", "RESET", "DISCARD"))
	require.Equal(t, []string{"+OK", "*0"}, w.do("MULTI", "EXEC"))
	w.write(encodeAll("MULTI", "INCR a", "QUIT"))
	require.Equal(t, []string{"+OK", "+QUEUED", "+OK"}, w.ended())
	require.Empty(t, r.all())
}

// Increments that are added up need a second call if the sum might overflow.
func TestIncrementsOfATransactionAreNotAddedUp(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	w.do("MULTI", "INCR a", "INCR a", "SET b 1", "EXEC")
	require.Equal(t, []string{"increment a 1, increment a 1, set b 1"}, r.all())
}

func TestTransactionIsBounded(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	for _, command := range []string{"SET k%d 1", "INCRBY a 0"} { // also increments that would be added up
		commands := []string{"MULTI"}
		for i := range resp.MaxOperations + 1 {
			commands = append(commands, strings.ReplaceAll(command, "%d", strconv.Itoa(i)))
		}
		replies := w.do(append(commands, "EXEC")...)
		require.Equal(t, "+QUEUED", replies[resp.MaxOperations])
		require.Equal(t, "-ERR a transaction may have 250 operations", replies[resp.MaxOperations+1])
		require.Contains(t, replies[len(replies)-1], "-EXECABORT")
	}
	require.Empty(t, r.all())
}
