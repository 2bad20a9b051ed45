package command

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestHistoryShowsOperationsBeforeAndAfterTheirFlush(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	recording := cache.New(b.Redis, cache.Options{
		Shards: b.Config.Shards, CleanTTL: time.Hour, History: func(counter.Key) bool { return true },
	})
	w := recording.NewWriter(func() bool { return true })
	defer w.Close()
	set := counter.Operation{
		Key: "likes:7", Kind: counter.Set, Amount: 7, Origin: &counter.Origin{Caller: "web", Request: "r1", Note: "a note"},
	}
	add := counter.Operation{Key: "likes:7", Kind: counter.Increment, Amount: 1}
	for _, o := range w.Do(t.Context(), []cache.Write{{Operation: set, Blind: true}, {Operation: add, Blind: true}}) {
		require.NoError(t, o.Err)
	}
	require.Regexp(t, `(?m)^\?  +\S+Z +set +7 +\? +false +web +r1 +a note$`, b.succeeds(t, "history", "likes:7"))
	b.succeeds(t, "worker", "--drain", "--timeout", "50s")
	out := b.succeeds(t, "history", "--limit", "1", "likes:7")
	require.Regexp(t, `(?m)^1 +\S+Z +set +7 +7 +true +web +r1 +a note$`, out)
	require.Contains(t, out, "--after 1 shows them")
	require.Regexp(t, `(?m)^2 +\S+Z +increment +1 +8 +true +- +- +-$`, b.succeeds(t, "history", "--after", "1", "likes:7"))
	require.Equal(t, exitUsage, runHere(t.Context(), "history", "--limit", "0", "likes:7").status)
}
