package convert

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// id is the number of a lineage in layout 2, and id36 the same number in base 36.
const (
	id, id36 = "1795878419831572", "hol35mylg4"
	run      = "e9e876d3d"
	open     = "hokklyzn7k"
)

func TestEntriesAreTranslated(t *testing.T) {
	t.Parallel()
	require.Equal(t, id36, base36(id))
	for text, want := range map[string]struct{ clean, open, aside string }{
		"5 7":                               {"5 7 0", "5 7 " + open + " b6", "5 7 " + open + ":a b6"},
		"0 0":                               {"0 0 0", "0 0 " + open + " b0", "0 0 " + open + ":a b0"},
		"0 2 x":                             {"0 2 0:x", "0 2 " + open + ":x b1", "0 2 " + open + ":xa b1"},
		"-5 7 " + run + id + " b6 w-3":      {"-5 7 0", "-5 7 " + open + " l" + id36 + " b6 w-3", "-5 7 " + open + ":a l" + id36 + " b6 w-3"},
		"5 7 " + run + id + " b6":           {"5 7 0", "5 7 " + open + " l" + id36 + " b6", "5 7 " + open + ":a l" + id36 + " b6"},
		"5 7 " + run + id + " b6 w3 c6,1x2": {"5 7 0", "5 7 " + open + " l" + id36 + " b6 w3", "5 7 " + open + ":a l" + id36 + " b6 w3"},
		"1 2 u1 " + run + id + " b0 w0":     {"1 2 0", "1 2 " + open + ":u l" + id36 + " b0 w0", "1 2 " + open + ":ua l" + id36 + " b0 w0"},
		"0 2 x u2 " + run + id + " b0":      {"0 2 0:x", "0 2 " + open + ":xs l" + id36 + " b0", "0 2 " + open + ":xsa l" + id36 + " b0"},
		"5 7 " + run + id + " b6 p;" + id + ",set,6;" + id + ",-4,5": {
			"5 7 0",
			"5 7 " + open + " l" + id36 + " b6 p;" + id36 + ",set,6;" + id36 + ",-4,5",
			"5 7 " + open + ":a l" + id36 + " b6 p;" + id36 + ",set,6;" + id36 + ",-4,5",
		},
		"5 7 u1":                {"5 7 0", "5 7 " + open + ":u b0 w0", "5 7 " + open + ":ua b0 w0"}, // somebody's own
		"5 7 " + run + id:       {"5 7 0", "5 7 " + open + " b6", "5 7 " + open + ":a b6"},
		"5 7 e12345678 b6":      {"5 7 0", "5 7 " + open + " b6", "5 7 " + open + ":a b6"},
		"5 7 " + run + "9" + id: {"5 7 0", "5 7 " + open + " b6", "5 7 " + open + ":a b6"},
		"9223372036854775807 1": {"9223372036854775807 1 0", "9223372036854775807 1 " + open + " b0", "9223372036854775807 1 " + open + ":a b0"},
	} {
		e, ok := parseEntry2(text)
		require.True(t, ok, text)
		require.Equal(t, want.clean, e.clean(), text)
		require.Equal(t, want.open, e.unsynced(open, false), text)
		require.Equal(t, want.aside, e.unsynced(open, true), text)
		require.False(t, isLayout3(text))
		for _, translated := range []string{want.clean, want.open, want.aside} {
			require.True(t, isLayout3(translated), translated)
		}
	}
	for _, text := range []string{"", "5", "5 ", "x 7", "5 x", "5 -7", "+5 7", "5 +7", "9223372036854775808 1", "5 7x", "not a counter"} {
		_, ok := parseEntry2(text)
		require.False(t, ok, text)
	}
}

func TestRecordsAreTranslatedOnce(t *testing.T) {
	t.Parallel()
	for old, want := range map[string]string{
		"i5|a 5 7 0": "i5|a 5 7", "s7|a 7 1 12": "s7|a 7 1", "i6|u 0": "i6|u", "d|n 3 1": "d|n 3 1", "d|u 3": "d|u", "nonsense": "nonsense",
		"d|": "d|",
	} {
		require.Equal(t, want, record3(old))
		require.Equal(t, want, record3(want))
	}
}

func TestReadScore(t *testing.T) {
	t.Parallel()
	const now = 1_795_878_419_831
	for score, want := range map[float64]score2{
		now:               {dirty: true, ms: now},
		now - 0.5:         {dirty: true, ms: now - 1},
		now + 600_000.5:   {dirty: true, waits: true, ms: now + 600_000},
		now + 4*3_600_000: {dirty: true, ms: now},
		1 << 52:           {dirty: true, dead: true},
	} {
		require.Equal(t, want, readScore(&score, now))
	}
	require.Equal(t, score2{}, readScore(nil, now))
}

// FuzzEntry checks that translated entries are entries of layout 3.
func FuzzEntry(f *testing.F) {
	for _, text := range []string{"5 7", "0 2 x u2 " + run + id + " b0 p;" + id + ",set,6", "5 7 x"} {
		f.Add(text)
	}
	layout3 := regexp.MustCompile(`^-?\d+ \d+ \w+(:[a-z]+)?( [lbwp]\S*)*$`)
	f.Fuzz(func(t *testing.T, text string) {
		e, ok := parseEntry2(text)
		if !ok {
			return
		}
		for _, translated := range []string{e.clean(), e.unsynced(open, true)} {
			require.Regexp(t, layout3, translated)
			require.True(t, isLayout3(translated))
		}
		require.LessOrEqual(t, e.lastLineage(), int64(maxLineage))
	})
}

func TestParseName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]name{
		"{aw:07}:c:k":               {shard: 7, key: "k"},
		"{aw:100}:c:}:c:{aw:01}":    {shard: 100, key: "}:c:{aw:01}"},
		"{aw:07}:i:id:c:\x00a b":    {shard: 7, record: true, id: "id:c:", key: "a b"},
		"{aw:07}:i:batch\x013\x00k": {shard: 7, record: true, id: "batch\x013", key: "k"},
	} {
		got, ok := parseName(text)
		require.True(t, ok, text)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
	}
	for _, text := range []string{"{aw:7}:c:k", "{aw:07}:dead", "{aw:x}:c:k", "{aw:07}:c:", "{aw:07}:i:id", "aw:07}:c:k", "{aw:07}:c:\xff"} {
		_, ok := parseName(text)
		require.False(t, ok, text)
	}
}
