package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

func TestExamplesOfMappingsAreValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "mappings.md"))
	require.NoError(t, err)
	parts := strings.Split(string(text), "```yaml\n")
	require.Greater(t, len(parts), 1)
	for i, part := range parts[1:] {
		example, _, closed := strings.Cut(part, "```\n")
		require.True(t, closed)
		mappings, err := mapping.Parse([]byte(example))
		require.NoError(t, err, example)
		if i > 0 {
			continue
		}
		for key, want := range map[counter.Key]string{
			"post:7:likes": "post-likes", "views:7:2026-11-29": "daily-views", "post:007:likes": "",
		} {
			found, _ := mappings.Match(key)
			if want == "" {
				require.Nil(t, found, key)
			} else {
				require.Equal(t, mappings.Named(want), found, key)
				require.NotNil(t, found, key)
			}
		}
	}
}
