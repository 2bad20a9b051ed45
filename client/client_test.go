package client_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
)

func TestWritesAnswerWithTheCounter(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	ctx := t.Context()

	got, err := c.Increment(ctx, "likes:42", 5)
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "likes:42", Value: 5, Version: 1, Known: true}, got)
	got, err = c.Set(ctx, "likes:42", -100)
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "likes:42", Value: -100, Version: 2, Known: true}, got)
	got, err = c.Get(ctx, "likes:42")
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "likes:42", Value: -100, Version: 2, Known: true}, got)
	got, err = c.Increment(ctx, "likes:42", 1, client.Minimal())
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "likes:42"}, got)
	got, err = c.Delete(ctx, "likes:42")
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "likes:42", Deleted: true}, got)
	_, err = c.Get(ctx, "likes:42")
	require.True(t, client.IsCode(err, client.CodeNotFound), err)
	require.ErrorContains(t, err, "get likes:42: 404 not_found: there is no counter with this key")
	require.NotErrorIs(t, err, client.ErrOutcomeUnknown)
}

func TestAnyKeyIsTheSameInPathsAndBodies(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	for _, key := range []string{
		"a/increment", "..", ".", "//", "a b+c", "%41", "café", "<&>", "a?b#c", `"\`, "\u2028", strings.Repeat("<", 255),
	} {
		_, err := c.Increment(t.Context(), key, 1)
		require.NoError(t, err, key)
		results, err := c.Batch(t.Context(), []client.Operation{client.Add(key, 1)})
		require.NoError(t, err, key)
		require.Equal(t, client.Counter{Key: key, Value: 2, Version: 2, Known: true}, results[0].Counter)
		require.EqualValues(t, 2, value(t, c, key), key)
	}
}

func TestInvalidKeysAreRefused(t *testing.T) {
	t.Parallel()
	f := faulty()
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{})
	for _, key := range []string{"", "\xff", "a\nb", strings.Repeat("a", 256)} {
		_, err := c.Increment(t.Context(), key, 1)
		require.True(t, client.IsCode(err, client.CodeInvalidKey), "%q: %v", key, err)
		_, err = c.Batch(t.Context(), []client.Operation{client.Add(key, 1)})
		require.True(t, client.IsCode(err, client.CodeInvalidKey), "%q: %v", key, err)
	}
	require.Equal(t, 4, f.count(), "the empty key, and what JSON would change, are not sent")
}

func TestBoundsAreKeptByClientsThatRace(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	_, err := c.Set(t.Context(), "seats", 50)
	require.NoError(t, err)
	var sold, refused atomic.Int64
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			for range 20 {
				_, err := c.Increment(context.Background(), "seats", -1, client.Min(0))
				switch {
				case err == nil:
					sold.Add(1)
				case client.IsCode(err, client.CodeOutOfBounds):
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	require.EqualValues(t, 50, sold.Load())
	require.EqualValues(t, 150, refused.Load())

	_, err = c.Increment(t.Context(), "seats", 5, client.Max(4))
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, http.StatusConflict, e.Status)
	require.EqualValues(t, 0, *e.Value)
	require.EqualValues(t, 51, *e.Version)
	require.Equal(t, client.AppliedNo, e.Applied())
	results, err := c.Batch(t.Context(), []client.Operation{
		client.Add("seats", 3).AtMost(4), client.Add("seats", 3).AtMost(4), client.Add("seats", -4).AtLeast(0),
	})
	require.NoError(t, err)
	require.EqualValues(t, 3, results[0].Value)
	require.True(t, client.IsCode(results[1].Err, client.CodeOutOfBounds), results[1].Err)
	require.True(t, client.IsCode(results[2].Err, client.CodeOutOfBounds), results[2].Err)
}

func TestIfMatchWritesOnlyTheVersion(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	_, err := c.Set(t.Context(), "a", 1, client.IfExists())
	require.True(t, client.IsCode(err, client.CodeVersionMismatch), err)
	first, err := c.Set(t.Context(), "a", 1)
	require.NoError(t, err)
	_, err = c.Increment(t.Context(), "a", 1, client.IfMatch(first.Version))
	require.NoError(t, err)
	_, err = c.Delete(t.Context(), "a", client.IfMatch(first.Version))
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, client.CodeVersionMismatch, e.Code)
	require.EqualValues(t, 2, *e.Value)
	require.EqualValues(t, 2, *e.Version)
	require.EqualValues(t, 2, value(t, c, "a"))
	_, err = c.Delete(t.Context(), "a", client.IfExists())
	require.NoError(t, err)
}

func TestWaitReturnsWhenPostgresHasTheWrite(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Worker: true}, client.Options{})
	ctx := t.Context()
	got, err := c.Increment(ctx, "a", 1, client.Wait(patience))
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 1, Version: 1, Known: true, Synced: true}, got)
	got, err = c.Increment(ctx, "a", 1, client.Durability(client.InPostgres), client.Wait(patience), client.Minimal())
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Synced: true}, got)
	_, err = c.Increment(ctx, "a", 1)
	require.NoError(t, err)
	got, err = c.Get(ctx, "a", client.Wait(patience), client.Version(3))
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 3, Version: 3, Known: true, Synced: true, SyncedVersion: 3}, got)
	got, err = c.Delete(ctx, "a", client.Wait(patience))
	require.NoError(t, err)
	require.True(t, got.Deleted && got.Synced)
}

func TestWaitThatEndsEarlySucceedsUnsynced(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	got, err := c.Increment(t.Context(), "a", 1, client.Wait(time.Millisecond))
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 1, Version: 1, Known: true}, got)
	got, err = c.Get(t.Context(), "a", client.Wait(time.Millisecond))
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 1, Version: 1, Known: true}, got)

	_, err = c.Increment(t.Context(), "a", 1, client.Durability(client.InPostgres), client.Wait(time.Millisecond))
	require.True(t, client.IsCode(err, client.CodeNotDurable), err)
	require.Equal(t, client.AppliedYes, applied(t, err))
	require.EqualValues(t, 2, value(t, c, "a"), "applied once: the client does not repeat it")
}

func TestFlushReturnsWhatIsLeft(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Worker: true}, client.Options{})
	_, err := c.Increment(t.Context(), "a", 1)
	require.NoError(t, err)
	left, err := c.Flush(t.Context(), []string{"a"}, client.Wait(patience))
	require.NoError(t, err)
	require.Equal(t, client.Left{}, left)

	idle := setup(t, localapi.Options{}, client.Options{})
	_, err = idle.Increment(t.Context(), "a", 1)
	require.NoError(t, err)
	left, err = idle.Flush(t.Context(), nil, client.Wait(0))
	require.NoError(t, err)
	require.Equal(t, client.Left{Dirty: 1}, left)
}

func TestOptionThatAMethodDoesNotHaveIsRefused(t *testing.T) {
	t.Parallel()
	c := connect(t, "http://127.0.0.1:1", client.Options{})
	_, err := c.Set(t.Context(), "a", 1, client.Min(0))
	require.EqualError(t, err, "invalid_query: the option Min does not belong to this method; nothing was sent")
	_, err = c.Batch(t.Context(), []client.Operation{client.Add("a", 1)}, client.IfMatch(1))
	require.ErrorContains(t, err, "the option IfMatch does not belong")
	_, err = c.Increment(t.Context(), "a", 1, client.Once(), client.IdempotencyKey("x"))
	require.ErrorContains(t, err, "not both")
}

func TestAddressMustBeAServer(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "counters.example", "ftp://counters.example", "http://", "http://a?b", "http://user:secret@a"} {
		_, err := client.New(address, client.Options{})
		require.ErrorContains(t, err, "the address of the server", address)
	}
	_, err := client.New("http://a", client.Options{Attempts: -1})
	require.ErrorContains(t, err, "must not be negative")
}

func TestHeadersOfEveryRequest(t *testing.T) {
	t.Parallel()
	f := faulty()
	c := setup(t, localapi.Options{Wrap: f.wrap}, client.Options{APIKey: "secret", UserAgent: "shop/1.2"})
	_, err := c.Increment(t.Context(), "a", 1)
	require.NoError(t, err)
	_, err = c.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, []string{"Bearer secret", "Bearer secret"}, f.header("Authorization"))
	require.Equal(t, []string{"shop/1.2", "shop/1.2"}, f.header("User-Agent"))
	keys := f.header("Idempotency-Key")
	require.Len(t, keys[0], 26, "128 random bits")
	require.Empty(t, keys[1], "a read needs none")
}
