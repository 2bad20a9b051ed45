package client_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
)

func applied(t *testing.T, err error) client.Applied {
	t.Helper()
	var e *client.Error
	require.ErrorAs(t, err, &e)
	return e.Applied()
}

func TestWriteThatIsRepeatedCountsOnce(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{cutBefore, cutAfter, cutAnswer, busy, limited, lost, gateway} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			faults := faulty(f, f, f)
			c := setup(t, localapi.Options{Wrap: faults.wrap}, client.Options{})
			got, err := c.Increment(t.Context(), "a", 7)
			require.NoError(t, err)
			require.EqualValues(t, 7, got.Value)
			carriedOut := f == cutAfter || f == cutAnswer || f == lost || f == gateway
			require.Equal(t, carriedOut, got.Replayed)
			require.GreaterOrEqual(t, faults.count(), 2, "Go's transport may have made one of the attempts")
			keys := faults.header("Idempotency-Key")
			require.NotEmpty(t, keys[0])
			for _, key := range keys {
				require.Equal(t, keys[0], key)
			}
			require.EqualValues(t, 7, value(t, c, "a"))
		})
	}
}

func TestConnectionsThatAreCutAtRandomCountOnce(t *testing.T) {
	t.Parallel()
	kinds := []fault{none, cutBefore, none, cutAfter, none, cutAnswer, none, busy, lost}
	f := &faults{next: func(n int) fault { return kinds[n*n%len(kinds)] }}
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{Attempts: 50})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 25 {
				if _, err := c.Increment(context.Background(), "a", 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	require.EqualValues(t, 200, value(t, c, "a"))
	require.Greater(t, f.count(), 250)
}

func TestOutcomeStaysUnknownWhateverComesAfter(t *testing.T) {
	t.Parallel()
	for _, later := range [][]fault{{cutAfter}, {busy}, {forbidden}, {cutBefore, limited}} {
		t.Run(fmt.Sprint(later), func(t *testing.T) {
			t.Parallel()
			faults := faulty(append([]fault{cutAfter, cutAfter}, later...)...) // the second: Go's transport may repeat the first
			c := setup(t, localapi.Options{Wrap: faults.wrap}, client.Options{Attempts: len(later) + 2})
			_, err := c.Increment(t.Context(), "a", 1)
			require.ErrorIs(t, err, client.ErrOutcomeUnknown)
			require.ErrorContains(t, err, "may or may not have been applied")
			require.EqualValues(t, 1, value(t, c, "a"))
		})
	}
}

func TestOnceIsRepeatedOnlyIfItWasNotApplied(t *testing.T) {
	t.Parallel()
	faults := faulty(busy, limited, none, cutBefore)
	c := setup(t, localapi.Options{Wrap: faults.wrap}, client.Options{})
	_, err := c.Increment(t.Context(), "a", 1, client.Once())
	require.NoError(t, err)
	require.Equal(t, []string{"", "", ""}, faults.header("Idempotency-Key"))
	_, err = c.Increment(t.Context(), "a", 1, client.Once())
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)
	require.True(t, client.IsCode(err, client.CodeNoAnswer))
	require.Equal(t, 4, faults.count())
}

func TestReadsAreRepeatedAndNeverUnknown(t *testing.T) {
	t.Parallel()
	faults := faulty(none, cutBefore, cutAnswer, busy)
	c := setup(t, localapi.Options{Wrap: faults.wrap}, client.Options{Attempts: 5})
	_, err := c.Set(t.Context(), "a", 3)
	require.NoError(t, err)
	require.EqualValues(t, 3, value(t, c, "a"))

	dead := connect(t, "http://127.0.0.1:1", client.Options{Attempts: 2})
	_, err = dead.Get(t.Context(), "a")
	require.Error(t, err)
	require.NotErrorIs(t, err, client.ErrOutcomeUnknown)
}

func TestServerThatCannotBeReachedHasNotAppliedTheWrite(t *testing.T) {
	t.Parallel()
	c := connect(t, "http://127.0.0.1:1", client.Options{Attempts: 2})
	_, err := c.Increment(t.Context(), "a", 1, client.Once())
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, 2, e.Attempts, "not sent, so it was repeated")
	require.Equal(t, client.AppliedNo, e.Applied())
	var refused *net.OpError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "dial", refused.Op)
}

func TestRetryAfterIsHonouredWithinBounds(t *testing.T) {
	t.Parallel()
	start := func(retryAfter string, options client.Options) (*client.Client, *faults) {
		faults := faulty(busy)
		faults.retryAfter = retryAfter
		return setup(t, localapi.Options{Wrap: faults.wrap}, options), faults
	}
	c, faults := start("1", client.Options{})
	begun := time.Now()
	_, err := c.Increment(t.Context(), "a", 1)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), time.Second)
	require.Equal(t, 2, faults.count())

	c, faults = start("3600", client.Options{})
	_, err = c.Increment(t.Context(), "a", 1)
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, time.Hour, e.RetryAfter)
	require.Equal(t, client.CodeBackpressure, e.Code)
	require.Equal(t, client.AppliedNo, e.Applied())
	require.Equal(t, 1, faults.count(), "a longer pause than MaxRetryAfter is the caller's")

	c, faults = start("5", client.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	_, err = c.Increment(ctx, "a", 1)
	require.True(t, client.IsCode(err, client.CodeBackpressure), "%v: it does not wait beyond the deadline", err)
	require.NoError(t, ctx.Err())
	require.Equal(t, 1, faults.count())
}

func TestBackpressureOfTheServer(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Settings: map[string]string{"AFTERWRITE_MAX_DIRTY": "1"}}, client.Options{Attempts: 1})
	var err error
	for i := 0; err == nil && i < 1000; i++ { // the limit is checked against a number that is sampled
		_, err = c.Increment(t.Context(), "key "+strconv.Itoa(i), 1)
	}
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, client.CodeBackpressure, e.Code)
	require.Equal(t, http.StatusServiceUnavailable, e.Status)
	require.GreaterOrEqual(t, e.RetryAfter, time.Second)
	require.NotEmpty(t, e.RequestID)
	require.NotEmpty(t, e.Detail)
	require.Equal(t, client.AppliedNo, e.Applied())
}

func TestContextEndsTheCall(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	hangs := localapi.Options{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived <- struct{}{}
			<-release
		})
	}}
	c := setup(t, hangs, client.Options{})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Increment(ctx, "a", 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)

	_, err = c.Increment(ctx, "a", 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, client.AppliedNo, applied(t, err), "nothing was sent")
}

func TestTimeoutBoundsEachAttempt(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := &faults{}
	hangs.next = func(int) fault { return none }
	c := setup(t, localapi.Options{Wrap: func(api http.Handler) http.Handler {
		return hangs.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(hangs.header("")) == 1 {
				<-release
			}
			api.ServeHTTP(w, r)
		}))
	}}, client.Options{Timeout: time.Second, Attempts: 10})
	t.Cleanup(func() { close(release) })
	_, err := c.Increment(t.Context(), "a", 1)
	require.NoError(t, err, "a later attempt is answered")
}

func TestRedirectIsAnErrorAndSendsNothingElsewhere(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	c := connect(t, server.URL, client.Options{APIKey: "secret"})
	_, err := c.Increment(t.Context(), "a", 1)
	require.ErrorContains(t, err, "307 Temporary Redirect, not from afterwrite")
}

func TestAnswerThatIsNotAfterwritesIsUnknown(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<h1>Please sign in</h1>"))
	}))
	defer server.Close()
	c := connect(t, server.URL, client.Options{})
	_, err := c.Increment(t.Context(), "a", 1)
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)
	_, err = c.Batch(t.Context(), []client.Operation{client.Add("a", 1)})
	require.ErrorIs(t, err, client.ErrOutcomeUnknown)
	_, err = c.Get(t.Context(), "a")
	require.ErrorContains(t, err, "not afterwrite's")
	require.NotErrorIs(t, err, client.ErrOutcomeUnknown)
}
