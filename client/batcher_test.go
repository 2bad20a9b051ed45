package client_test

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// never is an interval that does not end within a test: only what the test does makes the Batcher send.
const never = time.Hour

// batcher returns a Batcher that is closed at the end of the test, and then must have no sums left.
func batcher(t testing.TB, c *client.Client, o client.BatcherOptions) *client.Batcher {
	t.Helper()
	b := openBatcher(t, c, o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, b.Close(ctx))
	})
	return b
}

func openBatcher(t testing.TB, c *client.Client, o client.BatcherOptions) *client.Batcher {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b, err := c.NewBatcher(o)
	require.NoError(t, err)
	return b
}

// within returns a context that ends after patience.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestBatcherAddsUpAndSendsTheSums(t *testing.T) {
	t.Parallel()
	f := faulty()
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never})
	for range 1000 {
		require.NoError(t, b.Add("a", 2))
		require.NoError(t, b.Add("b", -1))
		require.NoError(t, b.Add("zero", 1))
		require.NoError(t, b.Add("zero", -1))
	}
	require.Zero(t, f.count())
	require.NoError(t, b.Flush(within(t)))
	require.Equal(t, 1, f.count())
	got, err := c.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 2000, Version: 1, Known: true}, got)
	require.EqualValues(t, -1000, value(t, c, "b"))
	_, err = c.Get(t.Context(), "zero")
	require.True(t, client.IsCode(err, client.CodeNotFound), "a sum of 0 is not sent: %v", err)
	require.NoError(t, b.Flush(within(t)), "there is nothing to wait for")
}

func TestBatcherSendsAfterTheIntervalOrWithEnoughKeys(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: time.Millisecond})
	require.NoError(t, b.Add("a", 1))
	eventually(t, c, "a", 1)

	b = batcher(t, c, client.BatcherOptions{Interval: never, MaxBatch: 10})
	for i := range 10 {
		require.NoError(t, b.Add("key "+strconv.Itoa(i), 1))
	}
	eventually(t, c, "key 9", 1)
}

// eventually waits until a counter has the value.
func eventually(t *testing.T, c *client.Client, key string, want int64) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		counter, err := c.Get(t.Context(), key)
		return err == nil && counter.Value == want, key + " does not have the value"
	})
}

func TestBatcherIsExactWithAServerThatFailsAtRandom(t *testing.T) {
	t.Parallel()
	kinds := []fault{cutBefore, cutAfter, cutAnswer, busy, lost, gateway}
	var sent atomic.Int64
	var repaired atomic.Bool
	f := &faults{next: func(int) fault {
		sent.Add(1)
		if n := rand.IntN(2 * len(kinds)); n < len(kinds) && !repaired.Load() { //nolint:gosec // not a secret
			return kinds[n]
		}
		return none
	}}
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: time.Millisecond, MaxBatch: 50})
	const goroutines, increments, keys = 100, 500, 300
	var clients sync.WaitGroup
	var want [keys]atomic.Int64
	for range goroutines {
		clients.Go(func() {
			for i := range increments {
				key, by := rand.IntN(keys), rand.Int64N(100)-20 //nolint:gosec // not a secret
				if err := b.Add("key "+strconv.Itoa(key), by); err != nil {
					t.Error(err)
				}
				want[key].Add(by)
				if i%100 < 99 {
					continue
				}
				if err := b.Flush(context.Background()); err != nil { // several rounds, so that there are enough requests to fail
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	require.NoError(t, b.Flush(within(t)))
	require.Greater(t, sent.Load(), int64(10), "there were requests to fail")
	repaired.Store(true)
	for i := range want {
		require.Equal(t, want[i].Load(), value(t, c, "key "+strconv.Itoa(i)))
	}
}

// partly fails some operations of each batch alone, as a cluster does that lost one shard.
func partly(api http.Handler) http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 3 || r.URL.Path != "/v1/batch" {
			api.ServeHTTP(w, r)
			return
		}
		carryOut(api, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"results":[{"key":"a","value":null,"version":null,"synced":false},
			{"key":"b","error":{"type":"/problems/outcome_unknown","title":"T","status":504,"code":"outcome_unknown"}}]}`))
	})
}

func TestBatcherRepeatsOnlyWhatFailedAlone(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Wrap: partly}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never})
	require.NoError(t, b.Add("a", 1))
	require.NoError(t, b.Add("b", 1))
	// The second answer to b alone has two results: it counts as no answer. The fourth is the server's.
	require.NoError(t, b.Flush(within(t)))
	require.EqualValues(t, 1, value(t, c, "a"))
	require.EqualValues(t, 1, value(t, c, "b"))
}

func TestBatcherReportsWhatTheServerRefuses(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	_, err := c.Set(t.Context(), "full", math.MaxInt64)
	require.NoError(t, err)
	var reported []client.Sum
	b := batcher(t, c, client.BatcherOptions{Interval: never, OnRefused: func(s client.Sum) { reported = append(reported, s) }})
	require.NoError(t, b.Add("a", 1))
	require.NoError(t, b.Add("full", 3))
	require.NoError(t, b.Add("control\n", 4))

	err = b.Flush(within(t))
	var sums *client.SumsError
	require.ErrorAs(t, err, &sums)
	require.NotErrorIs(t, err, client.ErrOutcomeUnknown)
	require.Equal(t, sums.Sums, reported, "the Flush waits for the callbacks")
	codes := make(map[string]client.Code)
	for _, sum := range reported {
		var e *client.Error
		require.ErrorAs(t, sum.Err, &e)
		require.Equal(t, client.AppliedNo, sum.Applied)
		codes[sum.Key+" "+strconv.FormatInt(sum.By, 10)] = e.Code
	}
	require.Equal(t, map[string]client.Code{"full 3": client.CodeOverflow, "control\n 4": client.CodeInvalidKey}, codes)
	require.EqualValues(t, 1, value(t, c, "a"))

	require.NoError(t, b.Add("full", 1)) // alone, so that it fails the whole request
	require.ErrorContains(t, b.Flush(within(t)), `1 sums of increments were not acknowledged, such as +1 of "full" (applied: no)`)
	require.NoError(t, b.Flush(within(t)), "it is reported once")
}

func TestBatcherRefusesWhatItCannotHold(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	blocked := localapi.Options{Wrap: func(api http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			api.ServeHTTP(w, r)
		})
	}}
	c := setup(t, blocked, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never, MaxKeys: 2})
	require.NoError(t, b.Add("a", math.MaxInt64-1))
	err := b.Add("a", 2)
	require.True(t, client.IsCode(err, client.CodeOverflow), err)
	require.NoError(t, b.Add("b", 1)) // begins a request, since the bound is reached
	require.ErrorIs(t, b.Add("c", 1), client.ErrFull)
	require.NoError(t, b.Add("b", 1), "a key that it has is not bounded")
	require.True(t, client.IsCode(b.Add("", 1), client.CodeInvalidKey))
	require.True(t, client.IsCode(b.Add("\xff", 1), client.CodeInvalidKey))
	close(release)
	require.NoError(t, b.Flush(within(t)))
	require.NoError(t, b.Add("c", 1), "there is room again")
	require.NoError(t, b.Flush(within(t)))
	require.EqualValues(t, 2, value(t, c, "b"))
	require.EqualValues(t, 1, value(t, c, "c"))
}

func TestFlushThatEndsEarlyKeepsTheSums(t *testing.T) {
	t.Parallel()
	f := faulty(busy, cutAfter, busy, cutBefore)
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never})
	require.NoError(t, b.Add("a", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Flush(ctx); err != nil { // it may have been quicker
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, b.Add("a", 1))
	require.NoError(t, b.Flush(within(t)))
	require.EqualValues(t, 2, value(t, c, "a"))
}

func TestCloseSendsTheRest(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	b := openBatcher(t, c, client.BatcherOptions{Interval: never})
	require.NoError(t, b.Add("a", 3))
	require.NoError(t, b.Close(within(t)))
	require.NoError(t, b.Close(within(t)), "again")
	require.ErrorIs(t, b.Add("a", 1), client.ErrClosed)
	require.EqualValues(t, 3, value(t, c, "a"))
}

func TestCloseWithADeadServerEndsInTimeAndReportsTheSums(t *testing.T) {
	t.Parallel()
	dead := connect(t, "http://127.0.0.1:1", client.Options{})
	b := openBatcher(t, dead, client.BatcherOptions{Interval: time.Millisecond})
	require.NoError(t, b.Add("a", 1))
	require.NoError(t, b.Add("a", 2))
	require.NoError(t, b.Add("b", 4))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := b.Close(ctx)
	require.Less(t, time.Since(begun), 10*time.Second)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, client.ErrOutcomeUnknown, "no request was sent")
	sum := make(map[string]int64)
	var sums *client.SumsError
	require.ErrorAs(t, err, &sums)
	for _, s := range sums.Sums {
		sum[s.Key] += s.By
		require.Equal(t, client.AppliedNo, s.Applied)
	}
	require.Equal(t, map[string]int64{"a": 3, "b": 4}, sum)
	require.Equal(t, err, b.Close(t.Context()), "the same again")
}

func TestSumsThatCloseReportsAsUnknownMayBeRepeated(t *testing.T) {
	t.Parallel()
	carriedOut := make(chan struct{}, 100)
	var works atomic.Bool
	server := localapi.Options{Wrap: func(api http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if works.Load() {
				api.ServeHTTP(w, r)
				return
			}
			carryOut(api, r)
			carriedOut <- struct{}{}
			cut(w, nil)
		})
	}}
	c := setup(t, server, client.Options{})
	b := openBatcher(t, c, client.BatcherOptions{Interval: never})
	require.NoError(t, b.Add("a", 5))
	flushed, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Flush(flushed) }()
	<-carriedOut
	require.NoError(t, b.Add("a", 2)) // goes into a sum of its own
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	err := b.Close(flushed)
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)
	works.Store(true)

	var sums *client.SumsError
	require.ErrorAs(t, err, &sums)
	require.Len(t, sums.Sums, 2)
	for _, s := range sums.Sums {
		require.Equal(t, s.By == 5, s.Applied == client.AppliedUnknown)
		operation := client.Add(s.Key, s.By)
		operation.ID = s.ID
		_, err := c.Batch(t.Context(), []client.Operation{operation})
		require.NoError(t, err)
	}
	require.EqualValues(t, 7, value(t, c, "a"))
}

func TestSumWhoseOutcomeStaysUnknownIsGivenUp(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Wrap: (&faults{next: func(int) fault { return lost }}).wrap}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never, MaxAge: time.Nanosecond})
	require.NoError(t, b.Add("a", 5))
	err := b.Flush(within(t))
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)
	require.ErrorContains(t, err, `+5 of "a" (applied: unknown)`)
}

func TestBatcherLogsAnOutageOnce(t *testing.T) {
	t.Parallel()
	var log localtest.Buffer
	c := setup(t, localapi.Options{Wrap: faulty(busy, busy, cutAfter, cutAfter).wrap}, client.Options{})
	b := batcher(t, c, client.BatcherOptions{Interval: never, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, b.Add("a", 5))
	require.NoError(t, b.Flush(within(t)))
	require.Regexp(t, `^.*level=WARN.*are kept and sent again.*backpressure.*\n.*level=INFO.*are sent again.*\n$`, log.String())
}

func TestOptionsOfABatcherAreChecked(t *testing.T) {
	t.Parallel()
	c := connect(t, "http://127.0.0.1:1", client.Options{})
	_, err := c.NewBatcher(client.BatcherOptions{MaxBatch: client.MaxOperations + 1})
	require.ErrorContains(t, err, "MaxBatch be at most 10000")
	_, err = c.NewBatcher(client.BatcherOptions{Interval: -1})
	require.ErrorContains(t, err, "must not be negative")
}
