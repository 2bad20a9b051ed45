package operate_test

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

func TestPagesHaveEachKeyOnceInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 3000 // several reads of each shard's hash
	b.buryMany(t, n)
	for _, limit := range []int{1, 7, 500, 499, 5000} {
		var all []operate.DeadLetter
		var sizes []int
		for after := (operate.Cursor{}); ; {
			dead, next, err := b.service.List(t.Context(), "", after, limit)
			require.NoError(t, err)
			all, sizes = append(all, dead...), append(sizes, len(dead))
			if next == nil || limit == 1 && len(all) == 20 {
				break
			}
			require.Len(t, dead, min(limit, operate.MaxPage))
			after = *next
		}
		require.True(t, slices.IsSortedFunc(all, func(x, y operate.DeadLetter) int {
			return cmp.Or(cmp.Compare(x.Shard, y.Shard), cmp.Compare(x.Key, y.Key))
		}))
		if limit > 1 {
			require.Len(t, all, n, "%v", sizes)
			require.Positive(t, sizes[len(sizes)-1], "no empty page at the end")
		}
		seen := make(map[counter.Key]bool)
		for _, l := range all {
			require.False(t, seen[l.Key], l.Key)
			seen[l.Key] = true
			require.Equal(t, operate.StateValue, l.Redis.State)
			require.Equal(t, operate.StateNone, l.Postgres.State)
		}
	}
}

// A client that redrives every key of a page can still use its cursor, although those keys are no longer dead.
func TestCursorOfARedrivenKeyStaysValid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.buryMany(t, 100)
	total := 0
	for after := (&operate.Cursor{}); after != nil; {
		dead, next, err := b.service.List(t.Context(), "", *after, 30)
		require.NoError(t, err)
		for _, l := range dead {
			b.redrive(t, l.Key)
			total++
		}
		after = next
	}
	require.Equal(t, 100, total)
	dead, next, err := b.service.List(t.Context(), "", operate.Cursor{}, 30)
	require.NoError(t, err)
	require.Empty(t, dead)
	require.Nil(t, next)
}

func TestPageWithoutPostgresShowsRowsAsUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 3 {
		key := counter.Key(strconv.Itoa(i))
		b.do(t, set(key, 1))
		b.bury(t, key)
	}
	require.NoError(t, b.store.Close())
	dead, next, err := b.service.List(t.Context(), "", operate.Cursor{}, 2)
	require.NoError(t, err)
	require.Error(t, dead[1].PostgresErr)
	require.NotNil(t, next)
	require.Equal(t, operate.StateUnknown, dead[1].Postgres.State)
	require.Equal(t, int64(1), dead[1].Redis.Value)
}

func TestSearchFindsByKeyAndByReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("page:Home", 1), set("page:about", 1), set("other", 1))
	for key, reason := range map[counter.Key]string{"page:Home": "too much", "page:about": "too little", "other": "the page is full"} {
		require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{Reason: reason, Attempts: 1}))
	}
	for text, want := range map[string]int{"": 3, "PAGE": 3, "page:": 2, "home": 1, "TOO": 2, "nothing": 0} {
		dead, next, err := b.service.List(t.Context(), text, operate.Cursor{}, 10)
		require.NoError(t, err)
		require.Nil(t, next)
		require.Len(t, dead, want, text)
	}
	dead, next, err := b.service.List(t.Context(), "page:", operate.Cursor{}, 1)
	require.NoError(t, err)
	require.Len(t, dead, 1)
	dead, next, err = b.service.List(t.Context(), "page:", *next, 1)
	require.NoError(t, err)
	require.Nil(t, next)
	require.Len(t, dead, 1)
}

// A hanging Postgres must not use up the page's time limit, however many shards have dead letters.
func TestPageReturnsWhilePostgresHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.buryMany(t, 20) // in all shards
	slow, err := store.Open(b.url, store.Options{Logger: slog.New(slog.DiscardHandler), MaxConns: 1, StatementTimeout: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, slow.Close()) })
	service := operate.New(operate.Options{Cache: b.cache, Store: slow, Redis: b.redis, Logger: slog.New(slog.DiscardHandler)})
	lock, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, lock.Rollback()) }()
	_, err = lock.ExecContext(t.Context(), "LOCK TABLE counters IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	dead, next, err := service.List(ctx, "", operate.Cursor{}, 20)
	require.NoError(t, err)
	require.NoError(t, ctx.Err(), "the page must leave time for the answer")
	require.Nil(t, next)
	require.Len(t, dead, 20)
	require.ErrorIs(t, dead[19].PostgresErr, context.DeadlineExceeded)
	require.Equal(t, operate.StateUnknown, dead[19].Postgres.State)
	require.Equal(t, operate.StateValue, dead[19].Redis.State)
}
