package resp_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each line is a command and its reply, on counters of the same test, in order.
func TestCommandsAnswerAsRedisDoes(t *testing.T) {
	t.Parallel()
	w := setup(t).dial(t)
	for _, step := range [][2]string{
		{"GET a", "$-1"},
		{"SET a 15847293", "+OK"},
		{"GET a", "15847293"},
		{"INCRBY a 1", ":15847294"},
		{"incr a", ":15847295"},
		{"DECR a", ":15847294"},
		{"DECRBY a 15847295", ":-1"},
		{"STRLEN a", ":2"},
		{"TYPE a", "+string"},
		{"TYPE none", "+none"},
		{"TTL a", ":-1"},
		{"PTTL a", ":-1"},
		{"TTL none", ":-2"},
		{"STRLEN none", ":0"},
		{"EXISTS a none a", ":2"},
		{"SET a 5 GET", "-1"},
		{"SET b 7 GET", "$-1"},
		{"GETSET b 8", "7"},
		{"SET b 9 NX", "$-1"},
		{"SET b 9 XX", "+OK"},
		{"SET c 1 XX", "$-1"},
		{"SET c 1 NX", "+OK"},
		{"SET c 2 NX GET", "1"},
		{"SET c 2 KEEPTTL", "+OK"},
		{"SETNX c 3", ":0"},
		{"SETNX d 3", ":1"},
		{"MSET e 1 f 2 e 3", "+OK"},
		{"MGET e f none c", "*4 3 2 $-1 2"},
		{"DEL e none f", ":2"},
		{"DEL e", ":0"},
		{"SETNX e 4", ":1"},
		{"UNLINK e", ":1"},
		{"EXISTS e", ":0"},
		{"AW.INCRBY g 3 MIN 0 MAX 5", ":3"},
		{"AW.INCRBY g 3 max 5", "-OUTOFBOUNDS out_of_bounds: the value would leave the bounds; it is 3, and the operation was not applied"},
		{"AW.INCRBY g -4 MIN 0", "-OUTOFBOUNDS out_of_bounds: the value would leave the bounds; it is 3, and the operation was not applied"},
		{"AW.INCRBY g 10", ":13"},
		{"AW.IDEM x INCRBY h 2", ":2"},
		{"AW.IDEM x INCRBY h 2", ":2"},
		{"AW.IDEM x INCRBY h 3", "-ERR idempotency_key_reused: another operation on this counter had the same idempotency key; this one was not applied"},
		{"AW.IDEM y SET h 9", "+OK"},
		{"AW.IDEM z MSET h 1 i 2 h 3", "+OK"},
		{"AW.IDEM z MSET h 1 i 2 h 3", "+OK"},
		{"MGET h i", "*2 3 2"},
		{"AW.IDEM z AW.INCRBY h 1 MAX 100", ":4"},
		{"AW.IDEM z AW.INCRBY h 1 MAX 100", ":4"},
		{"PING", "+PONG"},
		{"PING hello", "hello"},
		{"ECHO hello", "hello"},
		{"SELECT 0", "+OK"},
		{"READONLY", "+OK"},
		{"CLIENT SETNAME me", "+OK"},
		{"CLIENT GETNAME", "me"},
		{"CLIENT SETINFO lib-name x", "+OK"},
		{"CLIENT NO-EVICT on", "+OK"},
		{"COMMAND INFO get nothing", "*2 *6 get :2 *1 +readonly :1 :1 :1 $-1"},
		{"CONFIG GET save", "*2 save "},
		{"CONFIG GET append*", "*2 appendonly no"},
		{"RESET", "+RESET"},
		{"CLIENT GETNAME", "$-1"},
		{"UNWATCH", "+OK"},
	} {
		require.Equal(t, step[1], w.one(step[0]), step[0])
	}
}

func TestErrorsAreThoseThatRedisClientsKnow(t *testing.T) {
	t.Parallel()
	w := setup(t).dial(t)
	require.Equal(t, "+OK", w.one("SET max 9223372036854775807"))
	for command, reply := range map[string]string{
		"INCR max":                      "-ERR increment or decrement would overflow",
		"DECRBY a -9223372036854775808": "-ERR decrement would overflow",
		"INCRBY a x":                    "-ERR value is not an integer or out of range",
		"INCRBY a 9223372036854775808":  "-ERR value is not an integer or out of range",
		"INCRBY a +1":                   "-ERR value is not an integer or out of range",
		"INCRBY a +123456789012345678":  "-ERR value is not an integer or out of range",
		"INCRBY a 01":                   "-ERR value is not an integer or out of range",
		"INCRBY a -0":                   "-ERR value is not an integer or out of range",
		"SET a 1.5":                     "-ERR value is not an integer or out of range",
		"SET a 1 EX 10":                 "-ERR invalid expire: counters do not expire, and nothing was applied",
		"SET a 1 PXAT 10":               "-ERR invalid expire: counters do not expire, and nothing was applied",
		"SET a 1 NX XX":                 "-ERR syntax error",
		"SET a 1 2":                     "-ERR syntax error",
		"INCR":                          "-ERR wrong number of arguments for 'incr' command",
		"MSET a 1 b":                    "-ERR wrong number of arguments for 'mset' command",
		"LPUSH a 1":                     "-ERR unknown command 'LPUSH'",
		"AVERYLONGCOMMANDNAME a":        "-ERR unknown command 'AVERYLONGCOMMANDNAME'",
		"EXEC":                          "-ERR EXEC without MULTI",
		"DISCARD":                       "-ERR DISCARD without MULTI",
		"SELECT 1":                      "-ERR DB index is out of range: there is only database 0",
		"SCAN x":                        "-ERR invalid cursor",
		"SCAN 99":                       "-ERR invalid cursor: it is too old, or from another process; begin again with 0",
		"SCAN 0 MATCH a*b":              "-ERR MATCH must be the beginning of a key and *, such as user:*",
		"HELLO 4":                       "-NOPROTO unsupported protocol version",
		"CONFIG SET save x":             "-ERR afterwrite has only CONFIG GET: its settings are environment variables",
		"AW.IDEM x GET a":               "-ERR AW.IDEM does not take 'GET': it takes writes of counters",
		"AW.IDEM x AW.IDEM y INCR a":    "-ERR AW.IDEM does not take 'AW.IDEM': it takes writes of counters",
		"AW.IDEM x INCR":                "-ERR wrong number of arguments for 'incr' command",
		"AW.IDEM x SET a 1 GET":         "-ERR AW.IDEM takes no command that returns the old value: a repeated one could not return it",
		"AW.INCRBY a 1 MIN 5 MAX 4":     "-ERR MIN is greater than MAX",
		"AW.INCRBY a 1 MIN":             "-ERR syntax error",
		"WAIT 1 -1":                     "-ERR timeout is not an integer or out of range",
		"WAITAOF 1 1 10":                "-ERR WAITAOF takes 0 or 1, and 0 replicas: only the disk of the primary can be confirmed",
		"WATCH a":                       "-ERR WATCH is not supported: a counter has a version, and the HTTP API changes it only at that version (If-Match)",
		"CLIENT KILL":                   "-ERR unknown subcommand or wrong number of arguments for 'KILL'. Try ID, SETNAME, GETNAME, SETINFO, INFO, NO-EVICT.",
	} {
		require.Equal(t, reply, w.one(command), command)
	}
	require.Equal(t, "$-1", w.one("GET a"), "nothing was applied")
}
