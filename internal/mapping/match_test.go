package mapping_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// single returns a file with one mapping of the pattern, whose placeholders are the columns of where.
func single(t require.TestingT, pattern string) *mapping.Mappings {
	m, err := mapping.Parse([]byte("mappings:\n" + patternItem(t, "m", pattern)))
	require.NoError(t, err, "%q", pattern)
	return m
}

func patternItem(t require.TestingT, name, pattern string) string {
	p, err := mapping.ParsePattern(pattern)
	require.NoError(t, err, "%q", pattern)
	var where strings.Builder
	where.WriteString("{constant: x")
	for _, h := range p.Placeholders() {
		fmt.Fprintf(&where, ", %s: \"{%s}\"", h.Name, h.Name)
	}
	return item(map[string]string{"name": name, "key": fmt.Sprintf("%q", pattern), "where": where.String() + "}", "table": name})
}

const id = "0f8fad5b-d9cb-469f-a165-70867728950e"

func TestMatchAcceptsOnlyTheWholeKeyInItsOnlyForm(t *testing.T) {
	t.Parallel()
	for pattern, keys := range map[string]struct{ good, bad []string }{
		"a:{n:int}": {
			good: []string{"a:0", "a:7", "a:-7", "a:10", "a:9223372036854775807", "a:-9223372036854775808", "a:1000000000000000000"},
			bad: []string{
				"", "a:", "a:-", "a:-0", "a:00", "a:07", "a:-07", "a:+7", "a: 7", "a:7 ", "a:7:", "b:7", "xa:7", "a:1e3", "a:0x1", "a:1_0", "a:٣",
				"a:9223372036854775808", "a:-9223372036854775809", "a:10000000000000000000", "a:--1", strings.Repeat("a", 256),
			},
		},
		"{n:int}-x": {good: []string{"5-x", "-5-x"}, bad: []string{"-x", "5-", "5-x-x", "--x", "05-x"}},
		"u:{u:uuid}": {
			good: []string{"u:" + id, "u:00000000-0000-0000-0000-000000000000"},
			bad:  []string{"u:" + strings.ToUpper(id), "u:" + id[:35], "u:" + id + "0", "u:{" + id + "}", "u:" + strings.ReplaceAll(id, "-", "0"), "u:g" + id[1:]},
		},
		"d:{d:date}:x": {
			good: []string{"d:2024-02-29:x", "d:2000-02-29:x", "d:0001-01-01:x", "d:9999-12-31:x"},
			bad: []string{
				"d:2023-02-29:x", "d:1900-02-29:x", "d:2024-02-30:x", "d:2024-13-01:x", "d:2024-00-01:x", "d:2024-01-00:x", "d:2024-04-31:x",
				"d:0000-01-01:x", "d:2024-1-01:x", "d:02024-01-01:x", "d:2024/01/01:x", "d:2024-01-01", "d:2024-01-0a:x", "d:2024-01-01T:x",
			},
		},
		"t:{t:text}:{n:int}": {good: []string{"t:a b:1", "t:ü🙂:1", "t:-:1", "t:'\":1"}, bad: []string{"t::1", "t:a:b:1", "t:a:", "t:a"}},
		"{t:text}":           {good: []string{"a", "🙂"}, bad: []string{"a:", ":", "a:b", ":a"}},
		"aba{t:text}:aba":    {good: []string{"abax:aba", "abaaba:aba"}, bad: []string{"aba", "aba:aba", "ababa"}},
		"total":              {good: []string{"total"}, bad: []string{"tota", "totals", "Total"}},
		"ключ:{n:int}":       {good: []string{"ключ:1"}, bad: []string{"ключ:"}},
	} {
		m := single(t, pattern)
		for _, key := range keys.good {
			got, values := m.Match(counter.Key(key))
			require.Same(t, m.All()[0], got, "%q %q", pattern, key)
			back, ok := got.CounterKey(values)
			require.True(t, ok, "%q %q", pattern, key)
			require.Equal(t, key, string(back))
		}
		for _, key := range keys.bad {
			got, values := m.Match(counter.Key(key))
			require.Nil(t, got, "%q %q", pattern, key)
			require.Nil(t, values)
		}
	}
}

func TestMatchFindsTheMappingOfAKey(t *testing.T) {
	t.Parallel()
	m := parse(t, example)
	got, values := m.Match("views:-7:2026-01-31")
	require.Equal(t, "daily-views", got.Name)
	require.Equal(t, []string{"-7", "2026-01-31"}, values)
	got, _ = m.Match("post:7:likes")
	require.Equal(t, "post-likes", got.Name)

	for _, none := range []*mapping.Mappings{nil, {}} {
		got, values = none.Match("post:7:likes")
		require.Nil(t, got)
		require.Nil(t, values)
	}
}

// The patterns share literals and placeholders, so a search that has gone wrong has to go back.
func TestMatchFindsOneOfManyAlikeMappings(t *testing.T) {
	t.Parallel()
	keys := map[string]string{
		"a": "a", "ab": "ab", "a:{x:int}": "a:1", "a:{x:int}:b": "a:1:b", "a:{x:text}:c": "a:1:c", "a:{x:date}": "a:2024-02-29",
		"a:{x:int}-{y:int}": "a:2024-2", "a:1{x:uuid}": "a:1" + id, "a:{x:uuid}:d": "a:" + id + ":d", "a:{x:text}:{y:int}:e": "a:1:1:e",
		"a:{x:int}:{y:text}:f": "a:1:1:f", "{x:text}:{y:text}:{z:text}:g": "a:1:1:g", "1{x:int}": "11", "a:{x:date}:{y:text}:h": "a:2024-02-29:1:h",
	}
	var text strings.Builder
	text.WriteString("mappings:\n")
	names, n := map[string]string{}, 0
	for pattern := range keys {
		n++
		names[pattern] = fmt.Sprintf("m%d", n)
		text.WriteString(patternItem(t, names[pattern], pattern))
	}
	m := parse(t, text.String())
	for pattern, key := range keys {
		got, values := m.Match(counter.Key(key))
		require.NotNil(t, got, "%q %q", pattern, key)
		require.Equal(t, names[pattern], got.Name)
		back, ok := got.CounterKey(values)
		require.True(t, ok)
		require.Equal(t, key, string(back))
	}
	for _, none := range []string{"", "b", "abc", "a:", "a:x", "a:1:", "a:1:1:i", "a:2024-02-30", "a:2024-02", "a:1:1:1:1", "1"} {
		got, _ := m.Match(counter.Key(none))
		require.Nil(t, got, none)
	}
}

func TestCounterKeyRefusesValuesWithoutAKey(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]string{
		nil,
		{"", "1"},
		{"a:b", "1"},
		{"a\n", "1"},
		{"a\xff", "1"},
		{"a", "01"},
		{"a", ""},
		{"a", "1x"},
		{"a"},
		{"a", "1", "2"},
		{strings.Repeat("x", 254), "1"},
	} {
		_, ok := single(t, "{t:text}:{n:int}").All()[0].CounterKey(bad)
		require.False(t, ok, "%q", bad)
	}
	key, ok := single(t, "{t:text}:{n:int}").All()[0].CounterKey([]string{strings.Repeat("x", 252), "12"})
	require.True(t, ok)
	require.Len(t, string(key), 255)
	_, ok = single(t, "d:{d:date}").All()[0].CounterKey([]string{"2026-02-29"})
	require.False(t, ok)
}

// drawPattern draws a valid pattern, and values that have a key if they are short.
func drawPattern(t *rapid.T) (string, []string) {
	literal := rapid.SampledFrom([]string{":", ":a", ":-", ":1", ":1:", ":x:"})
	var pattern strings.Builder
	pattern.WriteString(rapid.SampledFrom([]string{"", "a", "1", "-", "a:", "0", "20", "é"}).Draw(t, "start"))
	n := rapid.IntRange(0, 3).Draw(t, "placeholders")
	if n == 0 {
		pattern.WriteString("z")
	}
	values := make([]string, n)
	for i := range n {
		typ := rapid.SampledFrom([]mapping.Type{mapping.Int, mapping.UUID, mapping.Text, mapping.Date}).Draw(t, "type")
		values[i] = drawValue(t, typ)
		fmt.Fprintf(&pattern, "{p%d:%s}", i, typ)
		if i < n-1 || rapid.Bool().Draw(t, "ends with a literal") {
			pattern.WriteString(literal.Draw(t, "literal"))
		}
	}
	return pattern.String(), values
}

func drawValue(t *rapid.T, typ mapping.Type) string {
	switch typ {
	case mapping.Int:
		return strconv.FormatInt(rapid.Int64().Draw(t, "int"), 10)
	case mapping.UUID:
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	case mapping.Date:
		days := rapid.IntRange(0, 3_652_058).Draw(t, "date") // to 9999-12-31
		return time.Date(1, 1, 1+days, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	case mapping.Text:
		return rapid.StringMatching(`[a-z0-9é' -]{1,12}`).Draw(t, "text")
	}
	panic(typ)
}

func TestMatchReturnsTheValuesOfAKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern, values := drawPattern(t)
		m := single(t, pattern)
		key, ok := m.All()[0].CounterKey(values)
		require.True(t, ok, "%q %q", pattern, values)
		got, found := m.Match(key)
		require.NotNil(t, got, "%q %q", pattern, key)
		require.ElementsMatch(t, values, found)
		require.True(t, strings.HasPrefix(string(key), got.Prefix()))
	})
}

// A key with its values must be the only one, and what a value is must not depend on how the key came about.
func FuzzMatch(f *testing.F) {
	for _, seed := range [][3]string{
		{"post:{id:int}:likes", "post:7:likes", "post:07:likes"},
		{"{t:text}:{n:int}", "a:1", "a:-1"},
		{"{d:date}-{n:int}", "2024-02-29--5", "2023-02-29--5"},
		{"u{u:uuid}u", "u" + id + "u", "u" + strings.ToUpper(id) + "u"},
		{"{n:int}-{m:int}", "-1--1", "1-1"},
		{"{t:text}", "\xff", "\u0085"},
		{"\x8d", "\x8d", "0"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, pattern, a, b string) {
		if _, err := mapping.ParsePattern(pattern); err != nil || pattern == "" {
			return
		}
		m := single(t, pattern)
		ma, va := m.Match(counter.Key(a))
		mb, vb := m.Match(counter.Key(b))
		if ma != nil && mb != nil && a != b {
			require.NotEqual(t, va, vb)
		}
		if _, err := counter.ParseKey(a); err == nil && ma != nil {
			key, ok := ma.CounterKey(va)
			require.True(t, ok)
			require.Equal(t, a, string(key))
		}
	})
}

func hundred(t testing.TB) *mapping.Mappings {
	t.Helper()
	var b strings.Builder
	b.WriteString("mappings:\n")
	for i := range 100 {
		b.WriteString(patternItem(t, fmt.Sprintf("m%d", i), fmt.Sprintf("post:{id:int}:count%d", i)))
	}
	m, err := mapping.Parse([]byte(b.String()))
	require.NoError(t, err)
	return m
}

func TestMatchAllocatesOnlyTheValues(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts what other tests allocate
	m := parse(t, example)
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { m.Match("views:7:2026-01-31") }), 1.0)
	require.Zero(t, testing.AllocsPerRun(1000, func() { m.Match("views:7:2026-01-32") }))
}

func BenchmarkMatch(b *testing.B) {
	two, all := single(b, "views:{post:int}:{day:date}"), hundred(b)
	for name, run := range map[string]struct {
		m   *mapping.Mappings
		key counter.Key
	}{
		"Mapped":         {two, "views:123456:2026-01-31"},
		"Unmapped":       {two, "page:home"},
		"Last of 100":    {all, "post:123456:count99"},
		"None of 100":    {all, "post:123456:other"},
		"Unlike all 100": {all, "page:home"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				run.m.Match(run.key)
			}
		})
	}
}
