package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntryOfRedisIsReadAsItStands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		want  row
		found bool
	}{
		{"7 3", row{reading: reading{7, 3}}, true},
		{"0 4 x", row{reading: reading{0, 4}, deleted: true}, true},
		{"", row{}, false},
		{"7 3 u1", row{reading: reading{-1, -1}}, true}, // its base is unknown: equal to no row
		{"7 3 ea1b2c3d417 b2 w6", row{reading: reading{-1, -1}}, true},
		{"7", row{reading: reading{-1, -1}}, true},
	} {
		got, found := decodeEntry(test.text)
		require.Equal(t, test.found, found, test.text)
		require.Equal(t, test.want, got, test.text)
	}
}
