package catalog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func TestTopHasThePresentValuesInTheirOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.enableTop(t)
	b.run(t, `INSERT INTO counters (key, value, version, updated_at) VALUES
		('a:1', 10, 1, now()), ('a:2', 20, 1, now()), ('a:3', 30, 1, now()), ('a:4', 40, 1, now()), ('a:5', 50, 1, now()), ('b:1', 60, 1, now())`)
	b.do(t, writepath.Options{}, set("a:2", 45), set("a:3", 1), set("a:new", 1000), counter.Operation{Key: "a:5", Kind: counter.Delete})

	top, err := b.catalog.Top(t.Context(), "a:", 4)
	require.NoError(t, err)
	require.True(t, top.Complete)
	require.Equal(t, []string{"a:2 45 2 false", "a:4 40 1 true", "a:3 1 2 false"}, texts(top.Results), "postgres has a:5 at place 1")

	b.flush(t)
	top, err = b.catalog.Top(t.Context(), "", 3)
	require.NoError(t, err)
	require.True(t, top.Complete)
	require.Equal(t, []string{"a:new 1000 1 true", "b:1 60 1 true", "a:2 45 2 true"}, texts(top.Results))
}

func TestTopSaysHowToEnableIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.catalog.Top(t.Context(), "", 1)
	require.Equal(t, counter.CodeNotFound, counter.CodeOf(err))
	require.ErrorContains(t, err, "AFTERWRITE_TOP=true")

	b.catalog = catalog.New(catalog.Options{Cache: b.Cache, Store: b.Store, Counters: b.service, TopEnabled: true})
	_, err = b.catalog.Top(t.Context(), "", 1)
	require.Equal(t, counter.CodeNotFound, counter.CodeOf(err))
	require.ErrorContains(t, err, "is missing: run `afterwrite migrate`")
}
