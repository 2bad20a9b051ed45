package store

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

func migrateTemplate(url string) error { return MigrateURL(context.Background(), url) }

// open returns a Store that is closed when the test ends.
func open(t testing.TB, url string, options Options) *Store {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := Open(url, options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// setup returns a Store on a migrated database of its own.
func setup(t testing.TB) *Store {
	t.Helper()
	return open(t, localtest.PostgresURL(t, migrateTemplate), Options{})
}

func row(key string, value, version int64) counter.Row {
	return counter.Row{Key: counter.Key(key), Value: value, Version: version}
}

func tombstone(key string, version int64) counter.Row {
	return counter.Row{Key: counter.Key(key), Version: version, Deleted: true}
}

// upsert requires that every row is written.
func upsert(t testing.TB, s *Store, rows ...counter.Row) {
	t.Helper()
	ahead, err := s.Upsert(t.Context(), rows)
	require.NoError(t, err)
	require.Empty(t, ahead)
}

// has requires that Postgres has exactly these rows.
func has(t testing.TB, s *Store, rows ...counter.Row) {
	t.Helper()
	want := make(map[counter.Key]counter.Row)
	keys := make([]counter.Key, 0, len(rows))
	for _, r := range rows {
		want[r.Key] = r
		keys = append(keys, r.Key)
	}
	got, err := s.Read(t.Context(), keys)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func exec(t testing.TB, s *Store, query string, args ...any) {
	t.Helper()
	_, err := s.db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func get[T any](t testing.TB, s *Store, query string, args ...any) T {
	t.Helper()
	var value T
	require.NoError(t, s.db.GetContext(t.Context(), &value, query, args...))
	return value
}

// soon returns a context that ends after d.
func soon(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// logBuffer collects the output of a logger.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}
