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
		{"7 3 0", row{reading: reading{7, 3}}, true},
		{"-7 3 hx2m8k4c1z b2 w6", row{reading: reading{-7, 3}}, true},
		{"7 3 hx2m8k4c1z lhx2m8k4c00 b1", row{reading: reading{7, 3}}, true},
		{"0 4 hx2m8k4c1z:x", row{reading: reading{0, 4}, deleted: true}, true},
		{"", row{}, false},
		{"7 3 hx2m8k4c1z:u b0", row{reading: reading{-1, -1}}, true}, // its base is unknown: equal to no row
		{"7 3 hx2m8k4c1z:s b0", row{reading: reading{-1, -1}}, true},
		{"7 3 hx2m8k4c1z:a b2", row{reading: reading{-1, -1}}, true}, // set aside
		{"0 3 hx2m8k4c1z:xa b2", row{reading: reading{-1, -1}}, true},
		{"7 3", row{reading: reading{-1, -1}}, true}, // of the layout before
		{"x 3 0", row{reading: reading{-1, -1}}, true},
		{"7 y 0", row{reading: reading{-1, -1}}, true},
		{"7", row{reading: reading{-1, -1}}, true},
	} {
		got, found := decodeEntry(test.text)
		require.Equal(t, test.found, found, test.text)
		require.Equal(t, test.want, got, test.text)
	}
}
