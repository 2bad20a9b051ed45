package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeEntry(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		want  row
		found bool
	}{
		{"7 3 0", row{reading: reading{7, 3}}, true},
		{"7 3 gjdgxsabcd lgjdgxsabcc b2 w6", row{reading: reading{7, 3}}, true}, // clean: the watermark has reached its epoch
		{"0 4 gjdgxsabcd:x", row{reading: reading{0, 4}, deleted: true}, true},
		{"0 4 gjdgxsabcd:xh", row{reading: reading{0, 4}, deleted: true}, true},
		{"7 3 gjdgxsabcd:h", row{reading: reading{7, 3}}, true},
		{"7 3 gjdgxsabcd:uh", row{reading: reading{-1, -1}}, true},
		{"", row{}, false},
		{"7 3 gjdgxsabcd:u", row{reading: reading{-1, -1}}, true},       // its base is unknown, so it must match no row
		{"7 3 gjdgxsabcd:a b2 w6", row{reading: reading{-1, -1}}, true}, // it is set aside, so it must match no row
		{"7", row{reading: reading{-1, -1}}, true},
	} {
		got, found := decodeEntry(test.text)
		require.Equal(t, test.found, found, test.text)
		require.Equal(t, test.want, got, test.text)
	}
}
