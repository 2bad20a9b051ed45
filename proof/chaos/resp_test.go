package main

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

func TestDecodeReplyDerivesTheOutcome(t *testing.T) {
	t.Parallel()
	value := func(n int64) answer {
		return answer{outcome: acknowledged, reason: "acknowledged", reading: &reading{n, unversioned}}
	}
	for _, test := range []struct {
		kind  stepKind
		reply any
		err   error
		want  answer
	}{
		{stepIncrement, int64(3), nil, value(3)},
		{stepIncrement, nil, redis.Nil, answer{outcome: acknowledged, reason: "acknowledged, value unknown"}},
		{stepSet, "OK", nil, answer{outcome: acknowledged, reason: "acknowledged"}},
		{stepDelete, int64(0), nil, answer{outcome: acknowledged, reason: "acknowledged"}},
		{stepGet, "-7", nil, value(-7)},
		{stepGet, nil, nil, answer{outcome: refused, reason: "not_found", missing: true}},
		{stepSet, nil, replyError("TRYAGAIN overloaded: full"), answer{outcome: refused, reason: "TRYAGAIN overloaded"}},
		{stepSet, nil, replyError("ERR overloaded: full"), answer{outcome: refused, reason: "ERR overloaded"}},
		{stepSet, nil, replyError("OOM cache_full: full"), answer{outcome: refused, reason: "OOM cache_full"}},
		{
			stepSet, nil, replyError("UNKNOWN outcome_unknown: the write"),
			answer{outcome: indeterminate, reason: "UNKNOWN outcome_unknown"},
		},
		{stepSet, nil, replyError("NOTDURABLE not_durable: no"), answer{outcome: indeterminate, reason: "NOTDURABLE not_durable"}},
		{stepSet, nil, errors.New("EOF"), answer{outcome: indeterminate, reason: "no answer"}},
		{stepSet, nil, &net.OpError{Op: "dial", Err: errors.New("refused")}, answer{outcome: refused, reason: "no connection"}},
	} {
		require.Equal(t, test.want, decodeReply(test.kind, result{test.reply, test.err}), "%v", test)
	}
	for _, r := range []result{
		{reply: "text"},
		{reply: int64(1)},
		{err: replyError("ERR internal: a bug")},
		{err: replyError("TRYAGAIN outcome_unknown: no")},
		{err: replyError("UNKNOWN overloaded: no")},
	} {
		require.NotEmpty(t, unexpected(decodeReply(stepGet, r)), "%v", r)
	}
}

func TestSequenceWithoutVersionsComparesValues(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	require.Empty(t, s.apply(step{stepIncrement, 3}, with(3, unversioned)))
	require.Contains(t, s.apply(step{kind: stepGet}, with(4, unversioned)), "value 4, but it must be 3")
	require.Empty(t, s.apply(step{stepIncrement, 2}, unsure))
	require.Empty(t, s.apply(step{stepSet, 7}, silent))
	require.Empty(t, s.apply(step{kind: stepGet}, with(9, unversioned)), "the loose operation may come late")
	require.Empty(t, s.apply(step{kind: stepGet}, with(9, 3)), "and then the version shows it")
	require.Zero(t, s.loose)
	require.Contains(t, s.apply(step{kind: stepGet}, with(9, 4)), "counted twice")
}

func TestUnversionedAnswersHaveOnlyTheirValuesChecked(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	for i := range int64(2) {
		require.Empty(t, a.settle(a.begin(5), 5, 0, acknowledged, &reading{5 * (i + 1), unversioned}))
	}
	require.Contains(t, a.read(a.open(), reading{5, unversioned}), "value 5, but it must be 10")
	require.Contains(t, final(a).check(reading{10, 1}), "lost")
	require.Contains(t, final(a).check(reading{10, 3}), "counted twice")
}

// TestBrokenPipelineLeavesOnlyTheRestUnknown has an api that answers some commands of a pipeline, and ends the connection.
func TestBrokenPipelineLeavesOnlyTheRestUnknown(t *testing.T) {
	t.Parallel()
	p := newRawPool(scripted(t, []string{":7\r\n-TRYAGAIN overloaded: full\r\n"}, []string{":8\r\n:9\r\n:10\r\n"}), 1)
	t.Cleanup(p.close)
	command := []any{"INCRBY", "a", int64(2)}
	results := p.send(t.Context(), [][]any{command, command, command})
	require.Equal(t, result{reply: int64(7)}, results[0])
	require.Equal(t, refused, decodeReply(stepIncrement, results[1]).outcome)
	require.Equal(t, indeterminate, decodeReply(stepIncrement, results[2]).outcome)
	require.Equal(t, int64(10), p.send(t.Context(), [][]any{command, command, command})[2].reply)
}

func TestCommandWithAnIDIsRepeatedUntilItsOutcomeIsKnown(t *testing.T) {
	t.Parallel()
	// go-redis begins with HELLO, which this api does not know.
	const hello = "-ERR unknown command 'hello'\r\n"
	addr := scripted(t,
		[]string{hello, "-UNKNOWN outcome_unknown: maybe\r\n"}, []string{hello, "-TRYAGAIN overloaded: full\r\n"}, []string{hello, ":9\r\n"})
	c := newRESPClient([]string{addr}, 1, newTally())
	t.Cleanup(c.close)
	a := c.do(t.Context(), 0, request{steps: []keyed{{step{stepIncrement, 2}, "a"}}, variant: 2})
	require.Equal(t, answer{outcome: acknowledged, reason: "acknowledged", reading: &reading{9, unversioned}}, a)
	require.Equal(t, "single, idempotent, repeated: acknowledged 1", c.forms.String())
}

// scripted starts an api that answers what arrives on each connection with the next reply, and then ends its side.
func scripted(t *testing.T, connections ...[]string) (addr string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	go func() {
		defer close(ended)
		for _, replies := range connections {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4096)
			for _, reply := range replies {
				_, _ = conn.Read(buffer)
				_, _ = io.WriteString(conn, reply)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}
