//go:build million

package operate_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/operate"
)

// Imports a million rows while their counters are written.
func TestImportOfAMillionRows(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	b := setupColumns(t)
	b.exec(t, `ALTER TABLE posts DROP CONSTRAINT posts_likes_check`)
	b.exec(t, `INSERT INTO posts SELECT n, n FROM generate_series(1, $1) n`, million)
	b.exec(t, `ANALYZE posts`)
	ctx, cancel := context.WithCancel(t.Context())
	var increments atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			n, err := b.increment(i * 104_729 % (million - 20))
			if err != nil {
				t.Error(err)
				return
			}
			increments.Add(n)
		}
	}()
	column := b.column(t, "likes")
	began := time.Now()
	report, err := column.Import(t.Context(), operate.ImportOptions{})
	require.NoError(t, err)
	took, during := time.Since(began), increments.Load()
	cancel()
	<-done
	t.Logf("import of a million rows during %d increments: %v; %d imported, %d had a counter", during, took.Round(time.Millisecond), report.Imported, report.Present)
	require.True(t, report.Complete)
	require.EqualValues(t, million, report.Rows)
	require.EqualValues(t, million, report.Imported+report.Present)
	require.Positive(t, during)
	require.Equal(t, million, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN posts ON key = 'post:' || id || ':likes' AND value = likes`))
	require.EqualValues(t, million*(million+1)/2+increments.Load(), b.number(t, `SELECT sum(likes) FROM posts`))

	began = time.Now()
	verified := b.verify(t, "likes", operate.VerifyColumnOptions{Unimported: true})
	t.Logf("verify: %v", time.Since(began).Round(time.Millisecond))
	require.EqualValues(t, million, verified.Counts[operate.ColumnEqual])
	require.Zero(t, verified.Unrepaired+verified.Counts[operate.ColumnUnimported])

	b.flushed(t)
	b.exec(t, `UPDATE posts SET likes = NULL`)
	began = time.Now()
	backfilled, err := column.Backfill(t.Context(), operate.BackfillOptions{})
	require.NoError(t, err)
	t.Logf("backfill: %v", time.Since(began).Round(time.Millisecond))
	require.EqualValues(t, million, backfilled.Updated)
	require.Equal(t, million, b.number(t, `SELECT count(*) FROM afterwrite.counters JOIN posts ON key = 'post:' || id || ':likes' AND value = likes`))
}
