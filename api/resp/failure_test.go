package resp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

var errSecret = errors.New("dial tcp 10.1.2.3:6379: user aw password hunter2: refused")

func failing(code counter.Code) counters {
	return always(counter.Result{Err: &counter.Error{Code: code, Detail: "for the client", Err: errSecret}})
}

func TestEveryFailureHasAnErrorThatSaysWhetherTheWriteWasApplied(t *testing.T) {
	t.Parallel()
	for code, reply := range map[counter.Code]string{
		counter.CodeBackpressure:        "-OOM backpressure: for the client",
		counter.CodeCacheFull:           "-OOM cache_full: for the client",
		counter.CodeOverloaded:          "-TRYAGAIN overloaded: for the client",
		counter.CodeCacheUnavailable:    "-TRYAGAIN cache_unavailable: for the client",
		counter.CodeDatabaseUnavailable: "-TRYAGAIN database_unavailable: for the client",
		counter.CodeNotDurable:          "-NOTDURABLE not_durable: for the client",
		counter.CodeOutOfBounds:         "-OUTOFBOUNDS out_of_bounds: for the client",
		counter.CodeOverflow:            "-ERR increment or decrement would overflow",
		counter.CodeInternal:            "-ERR internal: a bug in the server, which its log describes; a write may have been applied",
		"new_one":                       "-ERR new_one: for the client",
	} {
		b := serve(t, failing(code), resp.Options{})
		w := b.dial(t)
		for _, command := range []string{"INCR a", "GET a", "MGET a b", "DEL a", "SET a 1", "SETNX a 1", "AW.WAIT a 1"} {
			require.Equal(t, reply, w.one(command), command)
		}
		inPipeline := strings.Replace(reply, "-TRYAGAIN", "-ERR", 1)
		require.Equal(t, []string{"+OK", "+QUEUED", "+QUEUED", "*2 " + inPipeline + " " + inPipeline}, w.do("MULTI", "INCR a", "GET b", "EXEC"))
		for _, command := range []string{"INCR a", "AW.WAIT a 1"} {
			require.Equal(t, []string{inPipeline, "+PONG"}, w.do(command, "PING"))
			require.Equal(t, []string{"+PONG", inPipeline}, w.do("PING", command))
		}
		require.Contains(t, b.log.String(), "hunter2")
		require.Positive(t, b.metric(t, "afterwrite_rejected_total"))
	}
}

func TestUnknownOutcomeEndsTheConnectionAfterTheAnswersBefore(t *testing.T) {
	t.Parallel()
	const unknown = "-UNKNOWN outcome_unknown: the write may or may not have been applied, and the connection ends. " +
		"Repeat it only if it had AW.IDEM"
	var calls atomic.Int64
	b := serve(t, counters(func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		calls.Add(1)
		results := make([]counter.Result, len(ops))
		for i, op := range ops {
			if results[i] = ok; op.Key == "b" {
				results[i] = counter.Result{Err: &counter.Error{Code: counter.CodeOutcomeUnknown, Detail: "for the client"}}
			}
		}
		return results
	}), resp.Options{})
	for _, c := range []struct {
		commands []string
		replies  []string
	}{
		{[]string{"INCR a", "INCR b", "INCR a", "PING"}, []string{":1", unknown}},
		{[]string{"PING", "MSET a 1 b 2 c 3", "PING"}, []string{"+PONG", unknown}},
		{[]string{"INCR a", "INCR b", "NOPE"}, []string{":1", unknown}},
		{[]string{"INCR b", "INCR c", "MULTI"}, []string{unknown}},
		{[]string{"INCR b", "INCR c", "UNWATCH"}, []string{unknown}},
		{[]string{"MULTI", "INCR a", "INCR b", "INCR a", "EXEC", "INCR a"}, []string{"+OK", "+QUEUED", "+QUEUED", "+QUEUED", unknown}},
	} {
		w := b.dial(t)
		w.write(encodeAll(c.commands...))
		require.Equal(t, c.replies, w.ended(), c.commands)
	}
	require.EqualValues(t, 6, calls.Load(), "what follows is not carried out")

	w := b.dial(t)
	w.write(encodeAll("INCR b", "INCR c") + "*x\r\n")
	require.Equal(t, []string{unknown}, w.ended(), "the protocol error is not the answer to the second command")

	const unread = "-ERR cache_unavailable: Redis did not answer"
	require.Equal(t, []string{unread, "+PONG", unread}, b.dial(t).do("GET b", "PING", "MGET a b"), "reads leave nothing unknown")
	require.Equal(t, "-TRYAGAIN cache_unavailable: Redis did not answer", b.dial(t).one("AW.WAIT b 1"))
}

// The first operations of a pipeline fill the batch, and their outcome is not known.
func TestNothingIsCarriedOutAfterAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	var done atomic.Int64
	b := serve(t, counters(func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		done.Add(int64(len(ops)))
		results := make([]counter.Result, len(ops))
		results[0].Err = &counter.Error{Code: counter.CodeOutcomeUnknown}
		return results
	}), resp.Options{})
	var commands []string
	for i := range resp.MaxOperations + 1 {
		commands = append(commands, fmt.Sprintf("INCR k%d", i))
	}
	w := b.dial(t)
	w.write(encodeAll(commands...))
	replies := w.ended()
	require.Len(t, replies, 1)
	require.Contains(t, replies[0], "-UNKNOWN")
	require.EqualValues(t, resp.MaxOperations, done.Load())
}

// go-redis sends a pipeline again if its first answer is TRYAGAIN.
func TestPipelineIsNotSentAgainBecauseOfItsFirstCommand(t *testing.T) {
	t.Parallel()
	var calls, applied atomic.Int64
	b := serve(t, counters(func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		calls.Add(1)
		results := make([]counter.Result, len(ops))
		for i, op := range ops {
			if results[i] = ok; op.Key == "cold" {
				results[i] = counter.Result{Err: &counter.Error{Code: counter.CodeDatabaseUnavailable}}
			} else {
				applied.Add(1)
			}
		}
		return results
	}), resp.Options{})
	client := b.client(t, func(o *redis.Options) { o.MaxRetries, o.DisableIdentity = 3, true })
	pipe := client.Pipeline()
	pipe.Get(t.Context(), "cold")
	pipe.Incr(t.Context(), "warm")
	_, err := pipe.Exec(t.Context())
	require.ErrorContains(t, err, "database_unavailable")
	require.Equal(t, []int64{1, 1}, []int64{calls.Load(), applied.Load()})

	require.ErrorContains(t, client.Get(t.Context(), "cold").Err(), "database_unavailable")
	require.EqualValues(t, 5, calls.Load(), "a command that was alone is sent again")
}

func TestIncrementOfUnknownValueIsAnsweredWithNull(t *testing.T) {
	t.Parallel()
	w := serve(t, always(counter.Result{Counter: counter.Counter{Exists: true}}), resp.Options{}).dial(t)
	require.Equal(t, []string{"$-1", "$-1", "+OK"}, w.do("INCR a", "INCR a", "SET b 1"))
	w.one("HELLO 3")
	require.Equal(t, "_", w.one("INCR a"))
}

func TestPanicEndsTheConnectionOnly(t *testing.T) {
	t.Parallel()
	b := serve(t, counters(func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		if ops[0].Key == "panic" {
			panic("oh no")
		}
		return []counter.Result{ok}
	}), resp.Options{})
	other := b.dial(t)
	w := b.dial(t)
	w.write(encodeAll("INCR panic"))
	require.Empty(t, w.ended())
	require.Equal(t, ":1", other.one("INCR a"))
	require.Contains(t, b.log.String(), "oh no")
}

func TestTooManyDirtyCountersAreOOM(t *testing.T) {
	t.Parallel()
	b := setup(t)
	service := writepath.Open(writepath.Parts{Cache: b.Cache, Store: b.Store, BaseTimeout: patience, MaxDirty: 1})
	t.Cleanup(service.Close)
	limited := serve(t, service, resp.Options{}).dial(t)
	require.Equal(t, ":1", limited.one("INCR a"))
	n := 0
	b.eventually(t, func() bool { // the dirty counters are counted in the background
		n++
		reply := limited.one(fmt.Sprintf("INCR b%d", n))
		return reply == "-OOM backpressure: too many counters wait to be written to Postgres; the operation was not applied"
	})
	require.Equal(t, ":2", limited.one("INCR a"), "a dirty counter takes writes")
}

// broken is a Postgres that does not answer.
type broken struct{}

func (broken) Read(context.Context, []counter.Key) (map[counter.Key]counter.Row, error) {
	return nil, errSecret
}

func TestWithoutPostgresWhatNeedsTheOldValueIsNotApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	service := writepath.Open(writepath.Parts{Cache: b.Cache, Bases: broken{}})
	t.Cleanup(service.Close)
	w := serve(t, service, resp.Options{}).dial(t)
	for _, command := range []string{"GETSET a 5", "SET a 5 GET", "SET a 5 NX", "SETNX a 5", "GET a", "AW.INCRBY a 1 MAX 5"} {
		require.Contains(t, w.one(command), "-TRYAGAIN database_unavailable", command)
	}
	require.Equal(t, "$-1", b.dial(t).one("GET a"))
	require.Equal(t, []string{"$-1", "$-1", "+OK", ":1"}, w.do("INCR b", "INCR b", "SET c 5", "DEL d"), "the others are applied")
	require.Equal(t, "*3 2 5 $-1", b.dial(t).one("MGET b c d"))
}
