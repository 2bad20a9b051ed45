package counter

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDigestOfPatternsIsOfWhatTheySelect(t *testing.T) {
	t.Parallel()
	digest := func(text string) string {
		patterns, err := ParsePatterns(text)
		require.NoError(t, err)
		return patterns.Digest()
	}
	require.Empty(t, digest(""))
	require.Len(t, digest("likes:*"), 12)
	require.Equal(t, digest("likes:*,quota:7"), digest("quota:7 likes:*, likes:*"))
	require.NotEqual(t, digest("likes:*"), digest("likes:"))
	require.NotEqual(t, digest("a,b"), digest("ab"))
}
