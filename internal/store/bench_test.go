package store

import (
	"database/sql/driver"
	"fmt"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// BenchmarkUpsert replaces 1,000 of 100,000 rows, about one on each page of the table.
func BenchmarkUpsert(b *testing.B) {
	const keys, batch = 100_000, 1_000
	s := setup(b)
	exec(b, s, "INSERT INTO counters SELECT 'page:' || lpad(i::text, 8, '0'), 0, 0, NULL, now(), 0, 0 FROM generate_series(0, $1::int - 1) i", keys)
	exec(b, s, "VACUUM ANALYZE counters")

	batches := make([][]counter.Row, keys/batch)
	for i := range keys {
		n := i % len(batches)
		batches[n] = append(batches[n], row(fmt.Sprintf("page:%08d", i), 0, 0))
	}

	benchmark := func(name string, write func(rows []counter.Row) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			version := get[int64](b, s, "SELECT max(version) FROM counters")
			for b.Loop() {
				version++
				rows := batches[version%int64(len(batches))]
				for i := range rows {
					rows[i].Value, rows[i].Version = version, version
				}
				require.NoError(b, write(rows))
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
		})
	}
	benchmark("binary arrays", func(rows []counter.Row) error {
		_, err := s.Upsert(b.Context(), rows)
		return err
	})
	benchmark("pq.Array", func(rows []counter.Row) error {
		_, err := s.db.ExecContext(b.Context(), s.sql.upsert, textArrays(rows)...)
		return err
	})
}

// BenchmarkUpsertTop is BenchmarkUpsert with and without the index for Top, on which each row moves.
func BenchmarkUpsertTop(b *testing.B) {
	const keys, batch = 100_000, 1_000
	for _, index := range []bool{false, true} {
		b.Run(fmt.Sprintf("index=%t", index), func(b *testing.B) {
			s := setup(b)
			exec(b, s, "INSERT INTO counters SELECT 'page:' || lpad(i::text, 8, '0'), i, 0, NULL, now(), 0, 0 FROM generate_series(0, $1::int - 1) i", keys)
			if index {
				exec(b, s, s.sql.createTop)
			}
			exec(b, s, "VACUUM ANALYZE counters")
			exec(b, s, "CHECKPOINT")
			wal := get[string](b, s, "SELECT pg_current_wal_insert_lsn()")
			version := int64(0)
			for b.Loop() {
				version++
				rows := make([]counter.Row, batch)
				for i := range rows {
					n := (int(version)*batch + i*97) % keys
					rows[i] = row(fmt.Sprintf("page:%08d", n), int64(n)+version*int64(n%7+1), version)
				}
				_, err := s.Upsert(b.Context(), rows)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
			bytes := get[float64](b, s, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '"+wal+"')::float8")
			b.ReportMetric(bytes/float64(b.N*batch), "wal-B/row")
		})
	}
}

// BenchmarkEncode encodes the arguments of an upsert of 1,000 rows.
func BenchmarkEncode(b *testing.B) {
	rows := make([]counter.Row, 1_000)
	for i := range rows {
		rows[i] = row(fmt.Sprintf("page:%08d", i), int64(i)<<40, int64(i))
	}
	b.Run("binary arrays", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = upsertArgs(rows)
		}
	})
	b.Run("pq.Array", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, array := range textArrays(rows) {
				_, err := array.(driver.Valuer).Value()
				require.NoError(b, err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const keys = 1_000
	s := setup(b)
	exec(b, s, "INSERT INTO counters SELECT 'page:' || i, 0, 0, NULL, now(), 0, 0 FROM generate_series(0, 99999) i")
	exec(b, s, "VACUUM ANALYZE counters")
	wanted := make([]counter.Key, keys)
	for i := range wanted {
		wanted[i] = counter.Key(fmt.Sprint("page:", i*100))
	}
	b.ReportAllocs()
	for b.Loop() {
		rows, err := s.Read(b.Context(), wanted)
		require.NoError(b, err)
		require.Len(b, rows, keys)
	}
}

// textArrays encodes rows with lib/pq's array types.
func textArrays(rows []counter.Row) []any {
	keys, values := make(pq.StringArray, len(rows)), make(pq.Int64Array, len(rows))
	versions, deleted := make(pq.Int64Array, len(rows)), make(pq.BoolArray, len(rows))
	for i, r := range rows {
		keys[i], values[i], versions[i], deleted[i] = string(r.Key), r.Value, r.Version, r.Deleted
	}
	return []any{keys, values, versions, deleted, make(pq.Int64Array, len(rows)), versions}
}
