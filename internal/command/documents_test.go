package command

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// target is what a link or an image of a document leads to, in Markdown or in HTML.
var target = regexp.MustCompile(`\]\(([^)\s]+)[^)]*\)|\b(?:src|srcset|href)="([^"\s]+)`)

// elsewhere is a target that is no file of ours: it has a scheme, or is a place in the same document.
var elsewhere = regexp.MustCompile(`^([a-z]+:|#)`)

func TestWhatTheDocumentsLeadToIsThere(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	for _, path := range append(paths, filepath.Join(root, "README.md")) {
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			links := target.FindAllStringSubmatch(string(deployed(t, name)), -1)
			var missing []string
			for _, link := range links {
				to, _, _ := strings.Cut(link[1]+link[2], "#") // one of the two is empty
				if elsewhere.MatchString(link[1] + link[2]) {
					continue
				}
				if _, err := os.Stat(filepath.Join(filepath.Dir(path), to)); err != nil {
					missing = append(missing, to)
				}
			}
			require.Empty(t, missing, "of %d links", len(links))
		})
	}
}
