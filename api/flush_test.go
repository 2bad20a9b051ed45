package api_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// flusher implements api.Flusher with a function.
type flusher func(ctx context.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error)

func (f flusher) Flush(ctx context.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error) {
	return f(ctx, keys, timeout)
}

func TestFlushAnswersWithTheCountersThatAreLeft(t *testing.T) {
	t.Parallel()
	var gotKeys []counter.Key
	var gotTimeout time.Duration
	left := operate.Left{Dirty: 3, Retrying: 1, Dead: 2}
	b := serve(t, always(counter.Result{}), api.Options{
		Flusher: flusher(func(_ context.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error) {
			gotKeys, gotTimeout = keys, timeout
			return left, nil
		}),
	})

	a := b.send(t, http.MethodPost, "/v1/flush", "")
	require.Equal(t, http.StatusAccepted, a.StatusCode)
	require.JSONEq(t, `{"dirty":3,"retrying":1,"dead":2}`, a.text)
	require.Nil(t, gotKeys)
	require.Equal(t, 5*time.Second, gotTimeout)

	left = operate.Left{Dead: 2}
	a = b.send(t, http.MethodPost, "/v1/flush", `{"keys":["a","b"]}`, "Prefer: wait=7")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.JSONEq(t, `{"dirty":0,"retrying":0,"dead":2}`, a.text)
	require.Equal(t, []counter.Key{"a", "b"}, gotKeys)
	require.Equal(t, 7*time.Second, gotTimeout)
	b.send(t, http.MethodPost, "/v1/flush", `{}`, "Prefer: wait=0")
	require.Nil(t, gotKeys)
	require.Zero(t, gotTimeout)

	for body, code := range map[string]string{
		`{"keys":[]}`: "invalid_body", `{"keys":[1]}`: "invalid_key", `{"keys":[""]}`: "invalid_key", `{"all":true}`: "unknown_field",
		`[]`: "invalid_body", `{"keys":["a"],"keys":["b"]}`: "invalid_body",
	} {
		a := b.send(t, http.MethodPost, "/v1/flush", body)
		require.Equal(t, http.StatusBadRequest, a.StatusCode, body)
		require.Equal(t, code, a.problem(t).Code, body)
	}
}

func TestConcurrentFlushesAreLimitedAndAnsweredAtShutdown(t *testing.T) {
	t.Parallel()
	ctx, shutdown := context.WithCancel(context.Background())
	defer shutdown()
	begun := make(chan struct{}, 4)
	b := serve(t, always(counter.Result{}), api.Options{
		Shutdown: ctx,
		Flusher: flusher(func(ctx context.Context, _ []counter.Key, _ time.Duration) (operate.Left, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return operate.Left{Dirty: 1}, ctx.Err()
		}),
	})
	var waiting []<-chan *answer
	for range 4 {
		waiting = append(waiting, b.sendAsync(t, http.MethodPost, "/v1/flush", ""))
	}
	for range 4 {
		<-begun
	}
	a := b.send(t, http.MethodPost, "/v1/flush", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	shutdown()
	for _, w := range waiting {
		require.Equal(t, http.StatusAccepted, (<-w).StatusCode)
	}
}

// A flush that is canceled before it knows what is left must not say that nothing is.
func TestFlushThatWasCanceledEarlyIsNotAnsweredAsDone(t *testing.T) {
	t.Parallel()
	ctx, shutdown := context.WithCancel(context.Background())
	b := serve(t, always(counter.Result{}), api.Options{
		Shutdown: ctx,
		Flusher: flusher(func(ctx context.Context, _ []counter.Key, _ time.Duration) (operate.Left, error) {
			shutdown()
			<-ctx.Done()
			return operate.Left{}, ctx.Err()
		}),
	})
	a := b.send(t, http.MethodPost, "/v1/flush", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
}

func TestBadFlushesAreNotStarted(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{
		Flusher: flusher(func(context.Context, []counter.Key, time.Duration) (operate.Left, error) {
			panic("it was started")
		}),
	})
	a := b.send(t, http.MethodPost, "/v1/flush", `{"keys":["warm"]}`, "Content-Type: text/plain")
	require.Equal(t, http.StatusUnsupportedMediaType, a.StatusCode)
	a = b.sendRaw(t, "POST /v1/flush HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 8388609\r\n\r\n")
	require.Equal(t, http.StatusRequestEntityTooLarge, a.StatusCode)
	require.Equal(t, "body_too_large", a.problem(t).Code)
}

func TestFlushWithoutRedisIsUnavailable(t *testing.T) {
	t.Parallel()
	client := unreachable(t)
	f := operate.New(operate.Options{Cache: cache.New(client, cache.Options{Shards: 4}), Redis: client})
	a := serve(t, always(counter.Result{}), api.Options{Flusher: f}).send(t, http.MethodPost, "/v1/flush", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "cache_unavailable", a.problem(t).Code)
}
