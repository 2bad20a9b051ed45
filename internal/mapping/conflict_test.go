package mapping

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestCommonKeyIsExact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b, want string }{
		{"a", "a", "a"},
		{"a", "b", ""},
		{"post:{a:int}", "post:{b:text}", "post:1"},
		{"post:{a:int}", "post:{b:date}", ""},
		{"post:{a:int}", "post:{b:uuid}", ""},
		{"{a:text}", "{b:uuid}", "00000000-0000-0000-0000-000000000000"},
		{"{a:text}:{b:text}", "x:{c:int}", "x:1"},
		{"{a:text}:{b:text}", "x:{c:int}:y", ""},
		{"a{a:int}", "a1{b:int}", "a11"},
		{"a{a:int}", "a0{b:int}", ""},
		{"a{a:int}", "a-{b:int}", "a-1"},
		{"a{a:int}", "a--{b:int}", ""},
		{"a{a:int}", "a922337203685477580{b:int}", "a9223372036854775801"},
		{"a{a:int}", "a9223372036854775807", "a9223372036854775807"},
		{"a{a:int}", "a9223372036854775808", ""},
		{"a{a:int}", "a-9223372036854775808", "a-9223372036854775808"},
		{"a{a:int}", "a-9223372036854775809", ""},
		{"a{a:int}", "a92233720368547758070{b:int}", ""},
		{"{a:date}", "{b:text}", "1111-11-11"},
		{"{a:date}", "2023-02-29", ""},
		{"{a:date}", "2024-02-29", "2024-02-29"},
		{"{a:date}", "1900-02-29", ""},
		{"{a:date}", "0000-01-01", ""},
		{"{a:date}", "20{b:text}", "2011-11-11"},
		{"{a:date}", "0{b:int}-31", ""},
		{"{a:date}", "0{b:int}-10-31", "0111-10-31"},
		{"{a:date}:x", "{b:date}:y", ""},
		{"{a:text}:x", "é{b:text}", ""},
		{"{a:text}:x", "é{b:text}:x", "éx:x"},
		{"{a:text}", "x:{b:text}", ""},
		{strings.Repeat("k", 250) + "{a:text}", "{b:text}", strings.Repeat("k", 250) + "x"},
		{strings.Repeat("k", 250) + "{a:text}", "{b:text}:" + strings.Repeat("k", 9), ""},
		{strings.Repeat("k", 240) + "{a:text}:{b:text}", "{c:text}:{d:date}", strings.Repeat("k", 240) + "x:1111-11-11"},
		{strings.Repeat("k", 244) + "{a:text}:{b:text}", "{c:text}:{d:date}", ""},
	} {
		a, err := ParsePattern(c.a)
		require.NoError(t, err)
		b, err := ParsePattern(c.b)
		require.NoError(t, err)
		for _, pair := range [][2]Pattern{{a, b}, {b, a}} {
			key, found := commonKey(pair[0], pair[1])
			require.Equal(t, c.want != "", found, "%q %q: %q", c.a, c.b, key)
			require.Equal(t, c.want, key, "%q %q", c.a, c.b)
		}
	}
}

func find(p Pattern, key string) bool {
	m, _ := newMappings([]*Mapping{{Pattern: p}}).Match(counter.Key(key))
	return m != nil
}

// The automaton and Match must agree on every key.
func TestAutomatonAcceptsWhatMatchFinds(t *testing.T) {
	t.Parallel()
	accepts := func(p Pattern, key string) bool {
		s := p.start()
		for i := range len(key) {
			next, ok := p.step(s, key[i])
			if !ok {
				return false
			}
			s = next
		}
		return p.accepts(s)
	}
	for day := time.Date(-1, 12, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2010; day = day.AddDate(0, 0, 1) {
		for _, text := range []string{fmt.Sprintf("%04d-%02d-%02d", day.Year(), day.Month(), day.Day()), fmt.Sprintf("%04d-%02d-%02d", day.Year(), day.Month(), day.Day()+1)} {
			_, err := time.Parse(time.DateOnly, text)
			want := err == nil && day.Year() > 0
			require.Equal(t, want, Date.scan(text) == len(text), text)
			require.Equal(t, want, accepts(Pattern{placeholders: []Placeholder{{Type: Date}}, literals: []string{"", ""}}, text), text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom([]string{"{a:int}", "a{a:int}-{b:int}", "{a:text}:{b:int}", "{a:uuid}", "{a:date}:1", "a:{a:text}:b", "a"}).Draw(t, "pattern")
		p, err := ParsePattern(pattern)
		require.NoError(t, err)
		value := rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,3}`), rapid.StringMatching(`-?922337203685477[0-9]{1,5}`), rapid.StringMatching(`[a-f0-9-]{1,3}`),
			rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{11,13}`), rapid.StringMatching(`[0-9]{4}-[01][0-9]-[0-3][0-9]`), rapid.StringMatching("[a:b]{0,4}"))
		var key strings.Builder
		for i, literal := range p.literals {
			key.WriteString(literal)
			if i < len(p.placeholders) {
				key.WriteString(value.Draw(t, "value"))
			}
		}
		require.Equal(t, find(p, key.String()), accepts(p, key.String()), "%q %q", pattern, key.String())
	})
}

func TestCommonKeyIsAKeyOfBothOrNoKeyIs(t *testing.T) {
	t.Parallel()
	patterns := rapid.SampledFrom([]string{
		"{a:int}", "1{a:int}", "-{a:int}", "{a:int}-{b:int}", "{a:int}-1", "{a:text}", "{a:text}:{b:int}", "1:{a:text}", "{a:date}", "20{a:text}",
		"{a:int}-{b:int}-10", "{a:uuid}", "{a:text}:1", "é{a:text}", "1é", "é:{a:date}", "{a:date}-1", "{a:date}{a:text}"[:8], "a{a:int}:", "10",
	})
	keys := rapid.OneOf(rapid.StringMatching("[-012:é]{1,6}"), rapid.StringMatching("20[0-3][0-9]-1[0-9]-[0-3][0-9](-1)?"))
	rapid.Check(t, func(t *rapid.T) {
		a, err := ParsePattern(patterns.Draw(t, "a"))
		require.NoError(t, err)
		b, err := ParsePattern(patterns.Draw(t, "b"))
		require.NoError(t, err)
		common, found := commonKey(a, b)
		if found {
			_, err := counter.ParseKey(common)
			require.NoError(t, err)
			require.True(t, find(a, common) && find(b, common), "%q %q %q", a, b, common)
			return
		}
		key := keys.Draw(t, "key")
		require.False(t, find(a, key) && find(b, key), "%q %q %q", a, b, key)
	})
}

// 100 mappings are 4,950 pairs, of which each has to be quick.
func BenchmarkCommonKey(b *testing.B) {
	for name, pair := range map[string][2]string{
		"Usual": {"post:{a:int}:likes", "post:{b:int}:views"},
		"Worst": {"{a:int}:{b:int}:{c:int}:{d:int}:{e:int}:{f:int}:{g:int}:a:{h:int}", "{a:int}:{b:int}:{c:int}:{d:int}:{e:int}:{f:int}:{g:int}:b:{h:int}"},
		"Dates": {"a:{a:date}:{b:date}:{c:date}:a:{d:int}", "a:{a:date}:{b:date}:{c:date}:b:{d:int}"},
	} {
		x, err := ParsePattern(pair[0])
		require.NoError(b, err)
		y, err := ParsePattern(pair[1])
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, found := commonKey(x, y); found {
					b.Fatal("they have none")
				}
			}
		})
	}
}
