// Package docs tests the documents of this repository: their links, and the length of README.md.
package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

const (
	root = ".."

	// readmeWords is about two screens of text. The READMEs of river, asynq and miniflux have 900 to 1,300 words.
	readmeWords = 1300

	// home begins links to files of this repository, which are checked like relative ones.
	home = "https://github.com/afterwrite/afterwrite/blob/main/"
)

// document has the anchors that others can link to, and its own links.
type document struct {
	anchors []string
	links   []string
}

func TestLinkTargetsExist(t *testing.T) {
	t.Parallel()
	documents := all(t)
	require.Contains(t, documents, "README.md")
	for path, d := range documents {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			for _, link := range d.links {
				target, anchor := resolve(t, path, link)
				_, err := os.Stat(filepath.Join(root, target))
				require.NoError(t, err, link)
				if anchor != "" {
					require.Contains(t, documents[target].anchors, anchor, link)
				}
			}
		})
	}
}

func TestEveryDocumentAndImageIsLinked(t *testing.T) {
	t.Parallel()
	linked := make(map[string]bool)
	for path, d := range all(t) {
		for _, link := range d.links {
			target, _ := resolve(t, path, link)
			linked[target] = true
		}
	}
	for _, path := range files(t, ".md", ".png") {
		if strings.HasPrefix(path, "docs/") {
			require.True(t, linked[path], "no document links to %s", path)
		}
	}
}

// all parses every document, by its path below the root.
func all(t *testing.T) map[string]document {
	t.Helper()
	documents := make(map[string]document)
	for _, path := range files(t, ".md") {
		documents[path] = parse(t, path)
	}
	return documents
}

// resolve returns the target of a link in the document at path: a path below the root, and an anchor. For a link to another site
// it returns ".".
func resolve(t *testing.T, path, link string) (target, anchor string) {
	t.Helper()
	inside, absolute := strings.CutPrefix(link, home)
	u, err := url.Parse(inside)
	require.NoError(t, err, link)
	switch {
	case u.Scheme != "":
		return ".", ""
	case absolute:
		return u.Path, u.Fragment
	case u.Path == "":
		return path, u.Fragment
	default:
		return filepath.Join(filepath.Dir(path), u.Path), u.Fragment
	}
}

func TestDocumentsNamedInSourcesExist(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`\bdocs/[\w/-]+\.md\b`)
	for _, path := range files(t, ".go", ".lua", ".sql", ".sh", ".yml", ".html", "Makefile") {
		source, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		for _, document := range named.FindAllString(string(source), -1) {
			require.FileExists(t, filepath.Join(root, document), path)
		}
	}
}

func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, len(strings.Fields(read(t, "README.md"))), readmeWords)
}

func TestFiguresInReadmeAreInPerformance(t *testing.T) {
	t.Parallel()
	_, section, found := strings.Cut(read(t, "README.md"), "\n## Performance\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	figures := regexp.MustCompile(`\d+(?:,\d{3})+|\d+\.\d+`).FindAllString(section, -1)
	require.NotEmpty(t, figures)
	measured := read(t, "docs/performance.md")
	for _, figure := range figures {
		require.True(t, strings.Contains(measured, figure), //nolint:testifylint // Contains would print the whole document
			"README.md has %s, which docs/performance.md lacks: was the benchmark repeated?", figure)
	}
}

// files lists the files below the root whose names end with one of the suffixes, except build output and downloads.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", ".bin", ".afterwrite", "bin", "dist", "node_modules"}, entry.Name()) {
			return filepath.SkipDir
		}
		ends := func(suffix string) bool { return strings.HasSuffix(path, suffix) }
		if !entry.IsDir() && slices.ContainsFunc(suffixes, ends) {
			below, err := filepath.Rel(root, path)
			found = append(found, below)
			return err
		}
		return nil
	}))
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(content)
}

var attribute = regexp.MustCompile(`\b(src|srcset|href|id|name)="([^"\s]+)`)

// parse reads the document at path below the root.
func parse(t *testing.T, path string) document {
	t.Helper()
	source := []byte(read(t, path))
	var d document
	tree := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	require.NoError(t, ast.Walk(tree, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := node.(type) {
		case *ast.Heading:
			d.anchors = append(d.anchors, slug(plain(n, source), d.anchors))
		case *ast.Link:
			d.links = append(d.links, string(n.Destination))
		case *ast.Image:
			d.links = append(d.links, string(n.Destination))
		case *ast.HTMLBlock:
			d.html(lines(n.Lines(), source))
		case *ast.RawHTML:
			d.html(lines(n.Segments, source))
		}
		return ast.WalkContinue, nil
	}))
	return d
}

// html adds the anchors and links of a piece of HTML.
func (d *document) html(piece string) {
	for _, found := range attribute.FindAllStringSubmatch(piece, -1) {
		if name, value := found[1], found[2]; name == "id" || name == "name" {
			d.anchors = append(d.anchors, value)
		} else {
			d.links = append(d.links, value)
		}
	}
}

func lines(segments *text.Segments, source []byte) string {
	return string(segments.Value(source))
}

// plain returns the text of a node without markup.
func plain(node ast.Node, source []byte) string {
	if leaf, ok := node.(*ast.Text); ok {
		return string(leaf.Value(source))
	}
	var b strings.Builder
	for child := node.FirstChild(); child != nil; child = child.NextSibling() {
		b.WriteString(plain(child, source))
	}
	return b.String()
}

// slug returns GitHub's anchor for a heading: letters, digits, hyphens and underscores in lower case, spaces as hyphens. If an
// earlier heading has the same anchor, a number is appended.
func slug(heading string, earlier []string) string {
	base := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, heading)
	for n, anchor := 0, base; ; n++ {
		if n > 0 {
			anchor = base + "-" + strconv.Itoa(n)
		}
		if !slices.Contains(earlier, anchor) {
			return anchor
		}
	}
}

func TestSlugMatchesGitHub(t *testing.T) {
	t.Parallel()
	require.Equal(t, "is-it-all-there-after-a-restore", slug("Is it all there? After a restore", nil))
	require.Equal(t, "2-drainshard-has-two-ids", slug("2. drain:<shard> has two IDs", nil))
	require.Equal(t, "context-1", slug("Context", []string{"context"}))
}
