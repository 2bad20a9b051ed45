package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// insertRow gives Postgres a counter that Redis does not have.
func (b *realBundle) insertRow(t *testing.T, key string, v, version int64) {
	t.Helper()
	_, err := b.postgres.ExecContext(t.Context(),
		`INSERT INTO counters (key, value, version, updated_at) VALUES ($1, $2, $3, now())`, key, v, version)
	require.NoError(t, err)
}

// state is everything that is stored: each key of Redis as DUMP gives it, each row of Postgres as text.
func (b *realBundle) state(t *testing.T) []string {
	t.Helper()
	ctx := t.Context()
	stored := make(map[string]string)
	keys := b.Redis.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		dump, err := b.Redis.Dump(ctx, keys.Val()).Result()
		require.NoError(t, err)
		stored["redis "+keys.Val()] = dump
	}
	require.NoError(t, keys.Err())

	rows, err := b.postgres.QueryContext(ctx, `SELECT key, counters::text FROM counters`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var key, row string
		require.NoError(t, rows.Scan(&key, &row))
		stored["postgres "+key] = row
	}
	require.NoError(t, rows.Err())

	lines := make([]string, 0, len(stored))
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		lines = append(lines, fmt.Sprintf("%s: %q", name, stored[name]))
	}
	return lines
}
