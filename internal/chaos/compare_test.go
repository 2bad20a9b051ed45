package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntryOfRedisIsReadAsItStands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fields []any
		want   row
		found  bool
	}{
		{[]any{"7", "3", nil, nil}, row{reading: reading{7, 3}}, true},
		{[]any{"0", "4", "1", nil}, row{reading: reading{0, 4}, deleted: true}, true},
		{[]any{nil, nil, nil, nil}, row{}, false},
		{[]any{"7", "3", nil, "1"}, row{reading: reading{-1, -1}}, true}, // its base is unknown: equal to no row
		{[]any{"7", nil, nil, nil}, row{reading: reading{7, -1}}, true},
	} {
		got, found := decodeEntry(test.fields)
		require.Equal(t, test.found, found, test.fields)
		require.Equal(t, test.want, got, test.fields)
	}
}
