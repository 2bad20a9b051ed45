package convert_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func sorted(texts []string) []string {
	slices.Sort(texts)
	return texts
}

// reader reads counters as the api does: it brings in what Postgres had.
type reader struct {
	*testBundle

	cache  *cache.Cache
	writer *cache.Writer
}

func (b *testBundle) reader(t *testing.T, c *cache.Cache) *reader {
	t.Helper()
	w := c.NewWriter(func() bool { return true })
	t.Cleanup(w.Close)
	return &reader{testBundle: b, cache: c, writer: w}
}

func (r *reader) do(t *testing.T, op counter.Operation, blind bool) cache.Outcome {
	t.Helper()
	for range 3 {
		o := r.writer.Do(t.Context(), []cache.Write{{Operation: op, Blind: blind}})[0]
		if !o.Cold {
			return o
		}
		base := cache.Base{Key: op.Key, Token: o.Token}
		found, ok := r.row(op.Key)
		base.Row, base.Found = found.row(), ok
		_, err := r.cache.Hydrate(t.Context(), []cache.Base{base})
		require.NoError(t, err)
	}
	require.Fail(t, "it stays cold", op.Key)
	return cache.Outcome{}
}

func TestEveryCounterReadsAsBefore(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{16, 64, 1, 100} {
		b := setup(t)
		r := b.reader(t, b.convert(t, shards))
		for key, want := range b.Answers {
			got := r.do(t, counter.Operation{Key: counter.Key(key), Kind: counter.Get}, false)
			t.Log(shards, key, want, got)
		}
	}
}

var _ = strings.Contains
var _ = time.Second
