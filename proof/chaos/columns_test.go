package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestColumnHasTheValueOfItsCounterOrOfItsStart(t *testing.T) {
	t.Parallel()
	post, started := newName(1, ""), newName(4, "")
	views, startedViews := newName(2, ""), newName(5, "")
	require.Equal(t, "post:1:likes", post.key)
	require.Equal(t, "views:2:2026-01-03", views.key)
	require.Equal(t, []int64{0, 1004, 0, 1005}, []int64{post.start, started.start, views.start, startedViews.start})
	require.Equal(t, name{key: "hits"}, newName(0, "hits"))

	has := func(n name, counted row, column int64) *state {
		return &state{rows: map[string]row{n.key: counted}, columns: map[string]int64{n.key: column}}
	}
	only := func(n name, column int64) *state { return &state{columns: map[string]int64{n.key: column}} }
	seven, gone := row{reading: reading{7, 1}}, row{reading: reading{0, 2}, deleted: true}
	for _, n := range []name{post, started, views, startedViews} {
		require.Empty(t, n.disagrees(has(n, seven, 7)), n.key)
		require.Empty(t, n.disagrees(has(n, gone, 0)), n.key)
		require.Empty(t, n.disagrees(only(n, n.start)), n.key)
		require.NotEmpty(t, n.disagrees(has(n, seven, 8)), n.key)
		require.NotEmpty(t, n.disagrees(has(n, gone, 7)), n.key)
		require.NotEmpty(t, n.disagrees(only(n, 7)), n.key)
		require.NotEmpty(t, n.disagrees(&state{rows: map[string]row{n.key: seven}}), n.key)
	}
	require.Empty(t, views.disagrees(&state{}), "nothing was written yet")
	require.Empty(t, views.disagrees(&state{rows: map[string]row{views.key: gone}}), "a delete inserts no row")
	require.NotEmpty(t, startedViews.disagrees(&state{}))
	require.NotEmpty(t, post.disagrees(&state{}))
	require.Empty(t, newName(0, "hits").disagrees(&state{rows: map[string]row{"hits": seven}}))
}
