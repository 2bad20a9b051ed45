package counter_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestParseKeyAcceptsUTF8WithoutControlCharacters(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"a", "page:home", "a/b", "a b", "100%", "..", "+", "ключ", "🙂", "{tag}", `"`, `\`, "\u00a0", "\u200b",
		strings.Repeat("x", counter.MaxKeyBytes),
	} {
		key, err := counter.ParseKey(good)
		require.NoError(t, err, "%q", good)
		require.Equal(t, counter.Key(good), key)
	}
	for bad, detail := range map[string]string{
		"": "empty", "a\x00b": "control", "a\nb": "control", "\x7f": "control", "\u0085": "control", "\xff": "UTF-8", "a\xc3": "UTF-8",
		strings.Repeat("x", counter.MaxKeyBytes+1): "256 bytes", strings.Repeat("é", 128): "256 bytes",
	} {
		_, err := counter.ParseKey(bad)
		require.Equal(t, counter.CodeInvalidKey, counter.CodeOf(err), "%q", bad)
		require.ErrorContains(t, err, detail)
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"", "a", "a/b", "\xff", "\x00", "🙂", strings.Repeat("x", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := counter.ParseKey(s)
		if err != nil {
			require.Equal(t, counter.CodeInvalidKey, counter.CodeOf(err))
			return
		}
		require.Equal(t, s, string(key))
		require.Less(t, int(key.Shard(64)), 64)
	})
}

// Entries are stored under the shard of their key, so these values must never change.
func TestShardOfAKeyNeverChanges(t *testing.T) {
	t.Parallel()
	for key, shard := range map[counter.Key]string{"a": "27", "page:home": "60", "🙂": "19"} {
		require.Equal(t, shard, key.Shard(64).String(), "%q", key)
	}
}

func TestKeysAreSpreadEvenlyOverShards(t *testing.T) {
	t.Parallel()
	counts := make([]int, 64)
	for i := range 64_000 {
		counts[counter.Key(fmt.Sprintf("user:%d:likes", i)).Shard(64)]++
	}
	for shard, n := range counts {
		require.InDelta(t, 1000, n, 200, "shard %d", shard)
	}
}

func TestShardIsInRange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := counter.Key(rapid.String().Draw(t, "key"))
		shards := rapid.IntRange(1, counter.MaxShards).Draw(t, "shards")
		require.Less(t, int(key.Shard(shards)), shards)
		require.GreaterOrEqual(t, int(key.Shard(shards)), 0)
	})
}

func TestErrorHasACodeADetailAndACause(t *testing.T) {
	t.Parallel()
	cause := errors.New("dial tcp 10.0.0.1:6379")
	err := fmt.Errorf("apply: %w", &counter.Error{Code: counter.CodeCacheUnavailable, Detail: "Redis is away", Err: cause})
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(err))
	require.ErrorIs(t, err, cause)
	require.Equal(t, counter.CodeInternal, counter.CodeOf(cause))
	require.Empty(t, counter.CodeOf(nil))
	require.Equal(t, "cache_unavailable: Redis is away: dial tcp 10.0.0.1:6379", errors.Unwrap(err).Error())
}
