package store

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// full returns the error of a call when the server's disk is full, which a probe does not detect.
func full() error { return &pq.Error{Code: "53100", Message: "could not extend file"} }

func fine() error { return nil }

func TestSuccessfulProbesDoNotHideFailingCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		b := newBreaker(log.logger())
		for range 60 { // for five minutes of the bubble's time, a call every five seconds and a probe every second
			require.Error(t, b.run(full))
			require.False(t, b.up())
			for range 5 {
				_ = b.probe(fine)
				require.False(t, b.up())
				time.Sleep(time.Second)
			}
		}
		require.Equal(t, 1, log.count("postgres is unavailable"))
		require.Zero(t, log.count("postgres is available again"))

		time.Sleep(undetectedFor)
		require.NoError(t, b.probe(fine))
		require.True(t, b.up(), "no call has failed for a minute")
		require.Equal(t, 1, log.count("postgres is available again"))
	})
}

func TestASuccessfulCallEndsAnOutageAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(slog.New(slog.DiscardHandler))
		require.Error(t, b.run(full))
		require.NoError(t, b.run(fine))
		require.True(t, b.up())
		for range failuresToOpen {
			require.Error(t, b.run(full))
		}
		time.Sleep(openFor + openJitter)
		require.NoError(t, b.run(fine))
		require.True(t, b.up())
	})
}

func TestASuccessfulProbeEndsAnOutageThatAProbeFound(t *testing.T) {
	t.Parallel()
	b := newBreaker(slog.New(slog.DiscardHandler))
	require.Error(t, b.probe(full))
	require.False(t, b.up())
	require.NoError(t, b.probe(fine))
	require.True(t, b.up())
}

func TestQuietIgnoresCanceledCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{breaker: newBreaker(slog.New(slog.DiscardHandler))}
		require.Greater(t, s.Quiet(), 24*time.Hour, "there was no call")
		for _, call := range []func() error{fine, full} {
			_ = s.breaker.run(call)
			time.Sleep(time.Second)
			require.Equal(t, time.Second, s.Quiet())
		}
		_ = s.breaker.run(func() error {
			require.Zero(t, s.Quiet(), "a call is in progress")
			return context.Canceled
		})
		require.Equal(t, time.Second, s.Quiet(), "a canceled call shows nothing")
	})
}

func TestPingOfAWriterFailsOnAReadOnlyServer(t *testing.T) {
	t.Parallel()
	admin := setup(t)
	exec(t, admin, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	worker, reader := open(t, admin.url, Options{Writes: true}), open(t, admin.url, Options{})
	require.ErrorContains(t, worker.Ping(t.Context()), "read-only")
	require.False(t, worker.Up())
	require.NoError(t, reader.Ping(t.Context()))
	require.True(t, reader.Up())

	exec(t, admin, "ALTER TABLE counters RENAME TO elsewhere")
	require.ErrorContains(t, reader.Ping(t.Context()), "does not exist")
	exec(t, admin, "ALTER TABLE elsewhere RENAME TO counters")
	exec(t, admin, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$")
	untilBack(t, worker)
	require.NoError(t, reader.Ping(t.Context()))
	_, err := reader.Read(t.Context(), []counter.Key{"after"})
	require.NoError(t, err)
}
