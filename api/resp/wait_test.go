package resp_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// levels implements resp.Counters. It confirms, or not, and remembers the options.
type levels struct {
	recorder

	options []writepath.Options
	late    bool // a durability is not confirmed
}

func (l *levels) Do(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
	l.options = append(l.options, o)
	results := l.recorder.Do(ctx, ops, o)
	for i := range results {
		if l.late && o.Durability != writepath.AsConfigured {
			results[i].Err = &counter.Error{Code: counter.CodeNotDurable}
		}
	}
	return results
}

func TestWAITAsksForTheDurabilityOfTheCommandsBeforeIt(t *testing.T) {
	t.Parallel()
	var l levels
	w := serve(t, &l, resp.Options{Replicas: 2}).dial(t)
	require.Equal(t, []string{":101", "+OK", ":2", ":101", "*2 :1 :0"}, w.do("INCR a", "SET b 1", "WAIT 1 500", "INCR a", "WAITAOF 1 0 100"))
	l.late = true
	require.Equal(t, []string{":101", ":0", ":101", "*2 :0 :0"}, w.do("INCR a", "WAIT 2 0", "INCR a", "WAITAOF 1 0 0"))
	require.Equal(t, []writepath.Options{
		{Durability: writepath.OnReplicas, Wait: 500 * time.Millisecond},
		{Durability: writepath.OnDisk, Wait: 100 * time.Millisecond},
		{Durability: writepath.OnReplicas, Wait: 30 * time.Second},
		{Durability: writepath.OnDisk, Wait: 30 * time.Second},
	}, l.options)
}

func TestWAITIsRefusedForCommandsThatWereAnsweredBefore(t *testing.T) {
	t.Parallel()
	var l levels
	w := serve(t, &l, resp.Options{Replicas: 2}).dial(t)
	require.Equal(t, ":101", w.one("INCR a"))
	require.Contains(t, w.one("WAIT 1 500"), "-ERR WAIT covers only commands that have arrived together with it")
	require.Equal(t, []string{":101", ":2"}, w.do("INCR a", "WAIT 1 500"))
	require.Equal(t, "100", w.one("GET a"))
	require.Equal(t, ":2", w.one("WAIT 1 500"), "there is no write")

	w = serve(t, &l, resp.Options{Replicas: 2, Durability: writepath.OnReplicas}).dial(t)
	require.Equal(t, ":101", w.one("INCR a"))
	require.Equal(t, ":2", w.one("WAIT 1 500"), "no write is answered before it is on the replicas")
}

func TestRedisWithoutReplicasConfirmsNothing(t *testing.T) {
	t.Parallel()
	w := setup(t).dial(t)
	require.Equal(t, []string{":1", ":0", "1"}, w.do("INCR a", "WAIT 1 10", "GET a"))
}

func TestAWWAITAnswersWhenPostgresHasTheCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.dial(t)
	require.Equal(t, []string{":1", ":0", ":1"}, w.do("INCR a", "AW.WAIT a 10", "AW.WAIT never 10"))
	w.write(encodeAll("AW.WAIT a 20000"))
	b.flush(t)
	require.Equal(t, ":1", w.read())
}
