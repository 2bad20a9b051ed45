package localtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestEntryFields(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		"":              {},
		"-7 3 0":        {"v": "-7", "n": "3", "e": "0"},
		"0 3 1q:x":      {"v": "0", "n": "3", "e": "1q", "x": "1"},
		"5 2 1q:ua b0":  {"v": "5", "n": "2", "e": "1q", "u": "1", "a": "1", "b": "0"},
		"5 2 1q:xs l1p": {"v": "5", "n": "2", "e": "1q", "x": "1", "s": "1", "l": "1p"},
		"9 4 1q l1p b2 w-5 p;1a,7,1;1b,set,2": {
			"v": "9", "n": "4", "e": "1q", "l": "1p", "b": "2", "w": "-5", "p": ";1a,7,1;1b,set,2",
		},
	} {
		require.Equal(t, want, localtest.EntryFields(text), text)
	}
}
