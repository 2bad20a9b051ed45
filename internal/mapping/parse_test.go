package mapping_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/mapping"
)

const example = `
mappings:
  - name: post-likes
    key: "post:{id:int}:likes"
    table: posts
    where: {id: "{id}", kind: 7}
    set: likes
  - name: daily-views
    key: "views:{post:int}:{day:date}"
    table: stats.Daily Views
    where: {post_id: "{post}", day: "{day}"}
    set: views
    missing: insert
    deleted: null
`

func parse(t *testing.T, text string) *mapping.Mappings {
	t.Helper()
	m, err := mapping.Parse([]byte(text))
	require.NoError(t, err)
	return m
}

// one returns a file with one mapping of the given fields, which replace the usual ones.
func one(fields map[string]string) string {
	return "mappings:\n" + item(fields)
}

func item(fields map[string]string) string {
	usual := map[string]string{"name": "likes", "key": `"post:{id:int}"`, "table": "posts", "where": `{id: "{id}"}`, "set": "likes"}
	var b strings.Builder
	start := "  - "
	for _, f := range []string{"name", "key", "table", "where", "set", "missing", "deleted", "extra"} {
		value, ok := fields[f]
		if !ok {
			value, ok = usual[f]
		}
		if ok && value != "-" {
			b.WriteString(start + f + ": " + value + "\n")
			start = "    "
		}
	}
	return b.String()
}

func TestParseReadsAllFields(t *testing.T) {
	t.Parallel()
	all := parse(t, example).All()
	require.Len(t, all, 2)

	likes := all[0]
	require.Equal(t, "post:{id:int}:likes", likes.Pattern.String())
	require.Equal(t, []mapping.Placeholder{{Name: "id", Type: mapping.Int}}, likes.Pattern.Placeholders())
	require.Equal(t, "public", likes.Schema)
	require.Equal(t, "posts", likes.Table)
	require.Equal(t, []mapping.Column{{Name: "id", Placeholder: 0}, {Name: "kind", Placeholder: -1, Constant: "7"}}, likes.Where)
	require.Equal(t, mapping.Ignore, likes.Missing)
	require.False(t, likes.DeletedNull)
	require.Equal(t, "public.posts.likes", likes.ColumnName())
	require.Equal(t, "post:", likes.Prefix())
	require.Equal(t, "public.posts (id = 7, kind = '7')", likes.Row([]string{"7"}))

	views := all[1]
	require.Equal(t, "stats", views.Schema)
	require.Equal(t, "Daily Views", views.Table)
	require.Equal(t, []mapping.Column{{Name: "day", Placeholder: 1}, {Name: "post_id", Placeholder: 0}}, views.Where)
	require.Equal(t, mapping.Insert, views.Missing)
	require.True(t, views.DeletedNull)
	require.Equal(t, "stats.Daily Views (day = 2026-01-31, post_id = 7)", views.Row([]string{"7", "2026-01-31"}))
}

func TestParseAcceptsWhatIsUnusual(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"key without placeholders": one(map[string]string{"key": "total", "where": "{id: 1}"}),
		"empty constant":           one(map[string]string{"where": `{id: "{id}", kind: ""}`}),
		"deleted: 0":               one(map[string]string{"deleted": "0"}),
		"a constant apart": "mappings:\n" + item(map[string]string{"where": `{id: "{id}", kind: a}`}) +
			item(map[string]string{"name": "b", "key": `"b:{id:int}"`, "where": `{id: "{id}", kind: b}`}),
		"two columns of one row": "mappings:\n" + item(nil) + item(map[string]string{"name": "b", "key": `"b:{id:int}"`, "set": "views"}),
		"aliases":                "mappings:\n" + item(map[string]string{"where": `&w {id: "{id}"}`}) + item(map[string]string{"name": "b", "key": `"b:{id:int}"`, "set": "views", "where": "*w"}),
		"255 bytes":              one(map[string]string{"key": strings.Repeat("k", 254) + "{id:int}"}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parse(t, text)
		})
	}
}

func TestNamedFindsAMapping(t *testing.T) {
	t.Parallel()
	m := parse(t, example)
	require.Equal(t, "views", m.Named("daily-views").Set)
	require.Nil(t, m.Named("daily"))
	require.Nil(t, (*mapping.Mappings)(nil).Named("daily-views"))
}

func TestParseSaysWhatToChange(t *testing.T) {
	t.Parallel()
	field := func(name, value string) string { return one(map[string]string{name: value}) }
	second := func(fields map[string]string) string { return "mappings:\n" + item(nil) + item(fields) }
	empty := "the file has no mappings: add one, or leave AFTERWRITE_MAPPINGS empty"
	for text, want := range map[string]string{
		"": empty, "# nothing": empty, "---\n": empty, "mappings:": empty, "mappings: []": empty, "{}": empty,
		"a: [":                     "the file is not YAML: yaml: line 1: did not find expected node content",
		"mappings: 3":              `line 1: mappings is not a list: begin each mapping with "- name:"`,
		"[]":                       `line 1: the file begins with something else than mappings: begin it with "mappings:"`,
		"other: 1":                 `line 1: unknown field "other": the file has only the field mappings`,
		"mappings: []\nmappings:":  "line 2: the field mappings is there twice: join both lists",
		"mappings: []\n---\na: 1":  "the file has more than one YAML document: remove what follows ---",
		"mappings: [3]":            `mapping 1 (line 1): it is not a mapping: write its fields as "name: post-likes"`,
		strings.Repeat("#", 1<<21): "the file has more than 1048576 bytes: make it shorter",
		"mappings:\n" + strings.Repeat(item(nil), 101): "the file has 101 mappings: it can have at most 100",

		field("name", "-"):       `mapping 1 (line 2): name is missing: add one, as in "name: post-likes"`,
		field("name", "Likes"):   `mapping 1 (line 2): name: "Likes" is not valid: use 1 to 63 of a-z, 0-9 and -`,
		field("extra", "1"):      `likes (line 7): unknown field "extra": the fields are name, key, table, where, set, missing, deleted, history`,
		one(nil) + "    set: b":  `likes (line 7): the field set is there twice: remove one`,
		field("key", "-"):        `likes (line 2): key is missing: add it, as in key: "post:{id:int}:likes"`,
		field("key", ""):         `likes (line 3): key is empty: set it, as in key: "post:{id:int}:likes"`,
		field("key", "{id:int}"): `likes (line 3): key is not a text: put it in quotes, as in key: "post:{id:int}:likes"`,
		field("table", "-"):      `likes (line 2): table is missing: add it, as in table: public.posts`,
		field("table", "a.b.c"):  `likes (line 4): table: "a.b.c" is not valid: write it as schema.table, without quotes, each of at most 63 bytes`,
		field("set", "-"):        `likes (line 2): set is missing: add it, as in set: likes`,
		field("set", strings.Repeat("s", 64)): `likes (line 6): set: "` + strings.Repeat("s", 64) +
			`" is not the name of a column: use at most 63 bytes`,
		field("missing", "skip"): `likes (line 7): missing: "skip" is not known: use ignore, insert or dead`,
		field("deleted", "1"):    `likes (line 7): deleted: "1" is not known: use 0 or null`,
		field("deleted", ""):     `likes (line 7): deleted: "" is not known: use 0 or null`,

		field("where", "-"):                         `likes (line 2): where is missing: add the columns that find the row, as in where: {id: "{id}"}`,
		field("where", "{}"):                        `likes (line 5): where has no columns: name those that find the row, as in where: {id: "{id}"}`,
		field("where", "{id: {id}}"):                `likes (line 5): where: "id" is not a text: put it in quotes, as in {id: "{id}"}`,
		field("where", `{id: "{id}", b: null}`):     `likes (line 5): where: "b" is null, which equals nothing: use a placeholder or a constant`,
		field("where", `{id: "{id}", b: "x{id}"}`):  `likes (line 5): where: "b" is "x{id}": use one placeholder alone, as in "{id}", or a constant without braces`,
		field("where", `{id: "{id}", b: "{no}"}`):   `likes (line 5): where: "b" uses the placeholder "no", which the key does not have: add it to the key, or use another`,
		field("where", `{id: "{id}", b: "{id}"}`):   `likes (line 5): where uses the placeholder id 2 times: use it once`,
		field("where", `{id: "{id}", id: 2}`):       `likes (line 5): where has the column "id" twice: remove one`,
		field("where", `{id: "{id}", likes: 2}`):    `likes (line 5): where has the column "likes", which set writes: find the row by another column`,
		field("where", `{id: "{id}", b: "\u0001"}`): `likes (line 5): where: "b" has a control character: remove it`,
		field("where", `{id: "{id}", "": 1}`):       `likes (line 5): where: "" is not the name of a column: use at most 63 bytes`,
		field("where", "{id: 1}"):                   `likes (line 5): where does not use the placeholder id, so two keys would mean one row: add a column that is "{id}"`,

		second(nil): "likes (line 7): name: a mapping at line 2 has it too: rename one",
		second(map[string]string{"name": "b", "key": `"post:{id:text}"`, "set": "c"}): `b (line 7): key: "post:{id:text}" matches the key "post:1", ` +
			`and so does "post:{id:int}" of likes: change one so that a key has one mapping`,
		second(map[string]string{"name": "b", "key": `"b:{id:int}"`}): "b (line 7): set: public.posts.likes is also set by likes: " +
			"set another column, or add a column to where that is a different constant in each",
		second(map[string]string{"name": "b", "key": `"b:{id:int}"`, "set": "id", "where": `{x: "{id}"}`}): "b (line 7): table: b sets public.posts.id, " +
			"by which likes finds its row: choose another column",
	} {
		_, err := mapping.Parse([]byte(text))
		require.EqualError(t, err, want, "%.300s", text)
	}
}

func TestConstantsThatMayBeEqualTellNothingApart(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"1", `"01"`}, {"a", "A"}, {"a", `"a "`}, {"1", "1.0"}, {"a", "a"}} {
		_, err := mapping.Parse([]byte("mappings:\n" + item(map[string]string{"where": `{id: "{id}", kind: ` + pair[0] + "}"}) +
			item(map[string]string{"name": "b", "key": `"b:{id:int}"`, "where": `{id: "{id}", kind: ` + pair[1] + "}"})))
		require.ErrorContains(t, err, "b (line 7): set: public.posts.likes is also set by likes", "%v", pair)
	}
}

func TestAPlaceholderTellsNothingApartFromAConstant(t *testing.T) {
	t.Parallel()
	constant, placeholder := item(map[string]string{"key": "total", "where": "{kind: a}"}),
		item(map[string]string{"name": "b", "key": `"b:{kind:text}"`, "where": `{kind: "{kind}"}`})
	for _, text := range []string{constant + placeholder, placeholder + constant} {
		_, err := mapping.Parse([]byte("mappings:\n" + text))
		require.ErrorContains(t, err, "(line 7): set: public.posts.likes is also set by ")
	}
}

func TestParseReportsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	text := "mappings:\n" + item(map[string]string{"missing": "x", "set": "-"}) +
		item(map[string]string{"name": "b", "key": `"{a:int}{b:int}"`}) +
		item(map[string]string{"name": "c"}) + item(map[string]string{"name": "d", "key": `"post:7"`, "where": "{id: 7}"})
	_, err := mapping.Parse([]byte(text))
	var whos []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		who, _, _ := strings.Cut(line, ":")
		whos = append(whos, who)
	}
	require.Equal(t, []string{"likes (line 2)", "likes (line 6)", "b (line 8)", "d (line 17)"}, whos, "%v", err)
}

func TestPatternsThatCannotBeToldApartAreRefused(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"{a:int}{b:int}":                     "{b} follows {a} at once: put a literal, such as ':', between them",
		"{a:text}-x":                         `{a:text} is followed by "-x": only ':' or the end can follow a text`,
		"{a:int}0":                           "{a:int} is followed by the digit 0: put another character, such as ':', between them",
		"{a:float}":                          "the placeholder {a:float} needs a type: int, uuid, text or date, as in {a:int}",
		"{a}":                                "the placeholder {a} needs a type: int, uuid, text or date, as in {a:int}",
		"{:int}":                             "the placeholder {:int} has no valid name: use 1 to 63 letters, digits and _, as in {post_id:int}",
		"{1a:int}":                           "the placeholder {1a:int} has no valid name: use 1 to 63 letters, digits and _, as in {post_id:int}",
		"{a:int}:{a:int}":                    "two placeholders have the name a: rename one",
		"a{b":                                `"a{b" has a { without a }: write placeholders as {name:type}`,
		"{a{b:int}":                          `"{a{b:int}" has a { without a }: write placeholders as {name:type}`,
		"a\xff":                              `"a\xff" is not UTF-8, as keys are: write it in UTF-8`,
		"a}b":                                `"a}b" has a } without a {: write placeholders as {name:type}`,
		"{a:int}}":                           `"{a:int}}" has a } without a {: write placeholders as {name:type}`,
		"a\u0085":                            `"a\u0085" has a control character, which keys cannot have: remove it`,
		strings.Repeat("k", 255) + "{a:int}": "its shortest key has 256 bytes, and a key has at most 255: shorten it",
		strings.Repeat("{a:int}:", 1) + "{b:int}:{c:int}:{d:int}:{e:int}:{f:int}:{g:int}:{h:int}:{i:int}": "it has more than 8 placeholders: use fewer",
	} {
		_, err := mapping.ParsePattern(pattern)
		require.EqualError(t, err, want, "%q", pattern)
	}
}

func TestReadNamesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	_, err := mapping.Read(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.WriteFile(path, []byte(example), 0o600))
	m, err := mapping.Read(path)
	require.NoError(t, err)
	require.Len(t, m.All(), 2)

	require.NoError(t, os.WriteFile(path, []byte(one(map[string]string{"set": "-", "missing": "x"})), 0o600))
	_, err = mapping.Read(path)
	require.EqualError(t, err, fmt.Sprintf("the mappings in %s are not valid:\n"+
		"likes (line 2): set is missing: add it, as in set: likes\n"+
		"likes (line 6): missing: \"x\" is not known: use ignore, insert or dead", path))

	require.NoError(t, os.WriteFile(path, []byte(example+strings.Repeat("#", 1<<20)), 0o600))
	_, err = mapping.Read(path)
	require.ErrorContains(t, err, "more than 1048576 bytes")
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{example, "", "mappings: &a [*a]", "mappings: [{<<: {name: b}}]", one(nil), "? [a]\n: b", "mappings: [!!binary aaaa]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := mapping.Parse([]byte(text))
		if err == nil {
			require.NotEmpty(t, m.All())
			return
		}
		require.Nil(t, m)
	})
}

func TestDigestsDifferIfMappingsDo(t *testing.T) {
	t.Parallel()
	digest := func(text string) string {
		m, err := mapping.Parse([]byte("mappings:\n" + text))
		require.NoError(t, err)
		return m.Digest()
	}
	const likes = `- {name: a, key: "a:{id:int}", table: posts, where: {id: "{id}", kind: x}, set: likes}` + "\n"
	const views = `- {name: b, key: "b:{id:int}", table: posts, where: {id: "{id}"}, set: views}` + "\n"
	require.Empty(t, (*mapping.Mappings)(nil).Digest())
	require.Regexp(t, "^[0-9a-f]{12}$", digest(likes))
	require.Equal(t, digest(likes+views), digest(views+likes))
	require.Equal(t, digest(likes), digest(`- {set: likes, where: {kind: x, id: "{id}"}, missing: ignore, table: public.posts, name: a, key: "a:{id:int}"}`))
	seen := map[string]string{digest(likes): likes, digest(likes + views): likes + views}
	for _, change := range [][2]string{
		{"name: a", "name: c"},
		{"a:{id:int}", "A:{id:int}"},
		{"{id:int}", "{id:text}"},
		{"posts", "post"},
		{"posts", "blog.posts"},
		{"kind: x", "kind: y"},
		{"kind: x", "sort: x"},
		{"set: likes", "set: like"},
		{"set: likes", "set: likes, missing: dead"},
		{"set: likes", "set: likes, deleted: null"},
	} {
		text := strings.Replace(likes, change[0], change[1], 1)
		require.Empty(t, seen[digest(text)], text)
		seen[digest(text)] = text
	}
}
