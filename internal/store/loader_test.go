package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// countingReader counts the queries of a Loader.
type countingReader struct {
	*Store

	queries, keys, flying atomic.Int64

	mu   sync.Mutex
	most int64 // the most concurrent queries
}

func (c *countingReader) Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	c.queries.Add(1)
	c.keys.Add(int64(len(keys)))
	now := c.flying.Add(1)
	defer c.flying.Add(-1)
	c.mu.Lock()
	c.most = max(c.most, now)
	c.mu.Unlock()
	return c.Store.Read(ctx, keys)
}

// holdTable blocks all reads of the table until release is called.
func holdTable(t *testing.T, s *Store) (release func()) {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE counters IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	release = sync.OnceFunc(func() { _ = tx.Rollback() })
	t.Cleanup(release)
	return release
}

func setupLoader(t *testing.T, bound time.Duration) (*Store, *countingReader, *Loader) {
	t.Helper()
	s := setup(t)
	reader := &countingReader{Store: s}
	loader := NewLoader(reader, bound)
	t.Cleanup(loader.Close)
	return s, reader, loader
}

func flying(t *testing.T, reader *countingReader, want int64) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		return reader.flying.Load() == want, fmt.Sprintf("%d queries in progress, not %d", reader.flying.Load(), want)
	})
}

func waiting(t *testing.T, l *Loader, want int) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.queued == want, fmt.Sprintf("%d keys wait, not %d", l.queued, want)
	})
}

func TestLoaderReadsRows(t *testing.T) {
	t.Parallel()
	s, _, loader := setupLoader(t, 10*time.Second)
	upsert(t, s, row("a", 1, 1), tombstone("b", 2), row("c", 3, 3))
	rows, err := loader.Read(t.Context(), []counter.Key{"a", "b", "none", "a"})
	require.NoError(t, err)
	require.Equal(t, map[counter.Key]counter.Row{"a": row("a", 1, 1), "b": tombstone("b", 2)}, rows)

	rows, err = loader.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, rows)
}

func TestWaitingCallersShareOneQuery(t *testing.T) {
	t.Parallel()
	s, reader, loader := setupLoader(t, 30*time.Second)
	const callers = 50
	for i := range callers {
		upsert(t, s, row(fmt.Sprint("k", i), int64(i), 1))
	}
	release := holdTable(t, s)

	var group sync.WaitGroup
	got := make([]map[counter.Key]counter.Row, callers)
	errs := make([]error, callers)
	read := func(i int) {
		got[i], errs[i] = loader.Read(t.Context(), []counter.Key{counter.Key(fmt.Sprint("k", i)), "shared"})
	}
	for i := range maxFlights {
		group.Go(func() { read(i) })
		flying(t, reader, int64(i+1))
	}
	for i := maxFlights; i < callers; i++ {
		group.Go(func() { read(i) })
	}
	waiting(t, loader, callers-maxFlights+1)
	release()
	group.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		key := fmt.Sprint("k", i)
		require.Equal(t, map[counter.Key]counter.Row{counter.Key(key): row(key, int64(i), 1)}, got[i])
	}
	require.EqualValues(t, maxFlights+1, reader.queries.Load())
	require.EqualValues(t, maxFlights, reader.most)
}

func TestLoaderSplitsALargeReadIntoSeveralQueries(t *testing.T) {
	t.Parallel()
	_, reader, loader := setupLoader(t, 30*time.Second)
	keys := make([]counter.Key, maxQueuedKeys)
	for i := range keys {
		keys[i] = counter.Key(fmt.Sprint("k", i))
	}
	upsert(t, reader.Store, row("k0", 1, 1), row("k9999", 2, 1))
	rows, err := loader.Read(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.EqualValues(t, maxQueuedKeys/maxFlightKeys, reader.queries.Load())
	require.EqualValues(t, maxQueuedKeys, reader.keys.Load())
	require.LessOrEqual(t, reader.most, int64(maxFlights))

	_, err = loader.Read(t.Context(), append(slices.Clone(keys), "one more"))
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestLoaderRefusesAReadAtOnceIfItsQueueIsFull(t *testing.T) {
	t.Parallel()
	s, reader, loader := setupLoader(t, 30*time.Second)
	release := holdTable(t, s)
	var group sync.WaitGroup
	for i := range maxFlights {
		group.Go(func() { _, _ = loader.Read(t.Context(), []counter.Key{"k"}) })
		flying(t, reader, int64(i+1))
	}
	keys := make([]counter.Key, maxQueuedKeys)
	for i := range keys {
		keys[i] = counter.Key(fmt.Sprint("k", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() { _, _ = loader.Read(ctx, keys) })
	waiting(t, loader, maxQueuedKeys)

	started := time.Now()
	_, err := loader.Read(t.Context(), []counter.Key{"one more"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Less(t, time.Since(started), time.Second)

	before := reader.queries.Load()
	cancel()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		loader.mu.Lock()
		defer loader.mu.Unlock()
		return loader.queue[0].waiters == 0, "the canceled caller still waits"
	})
	release()
	group.Wait()
	require.Equal(t, before, reader.queries.Load(), "a query without callers is skipped")
}

func TestLoaderTimesOutAndRecovers(t *testing.T) {
	t.Parallel()
	s, _, loader := setupLoader(t, 100*time.Millisecond)
	upsert(t, s, row("k", 1, 1))
	release := holdTable(t, s)
	const callers = 10
	errs := make(chan error, callers)
	started := time.Now()
	for range callers {
		go func() {
			_, err := loader.Read(t.Context(), []counter.Key{"k"})
			errs <- err
		}()
	}
	for range callers {
		err := <-errs
		require.Equal(t, Outage, Classify(err), "%v", err)
	}
	require.Less(t, time.Since(started), 2*time.Second)
	release()
	localtest.Eventually(t, 15*time.Second, func() (bool, string) {
		rows, err := loader.Read(t.Context(), []counter.Key{"k"})
		return rows["k"] == row("k", 1, 1), fmt.Sprint(err)
	})
}

func TestACanceledReadIsClassifiedAsCanceled(t *testing.T) {
	t.Parallel()
	s, reader, loader := setupLoader(t, 30*time.Second)
	holdTable(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := loader.Read(ctx, []counter.Key{"k"})
		done <- err
	}()
	flying(t, reader, 1)
	cancel()
	require.Equal(t, Canceled, Classify(<-done))
}

func TestCloseFailsRunningAndWaitingReads(t *testing.T) {
	t.Parallel()
	s, reader, loader := setupLoader(t, 30*time.Second)
	holdTable(t, s)
	const callers = maxFlights + 3
	errs := make(chan error, callers)
	for i := range callers {
		go func() {
			_, err := loader.Read(t.Context(), []counter.Key{counter.Key(fmt.Sprint("k", i))})
			errs <- err
		}()
		if i < maxFlights {
			flying(t, reader, int64(i+1))
		}
	}
	waiting(t, loader, callers-maxFlights)
	loader.Close()
	for range callers {
		require.ErrorIs(t, <-errs, ErrUnavailable)
	}
	_, err := loader.Read(t.Context(), []counter.Key{"k"})
	require.ErrorIs(t, err, ErrUnavailable)
	loader.Close() // a second Close does nothing
	require.True(t, s.Available(), "a shutdown is not an outage")
}
