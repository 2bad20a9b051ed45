package client_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
)

func TestListHasEveryCounterOnce(t *testing.T) {
	t.Parallel()
	f := &faults{next: func(n int) fault {
		if n%3 == 0 {
			return cutAnswer
		}
		return none
	}}
	c := setup(t, localapi.Options{Worker: true, Wrap: f.wrap}, client.Options{})
	operations, want := []client.Operation{client.Put("other", 1)}, make([]string, 0, 25)
	for i := range cap(want) {
		want = append(want, fmt.Sprintf("page:%02d", i))
		operations = append(operations, client.Put(want[i], int64(i)))
	}
	_, err := c.Batch(t.Context(), operations)
	require.NoError(t, err)

	var got []string
	var pages []client.Page
	for page, err := range c.List(t.Context(), "page:", client.Limit(10), client.Wait(patience)) {
		require.NoError(t, err)
		pages = append(pages, page)
		for _, result := range page.Results {
			require.NoError(t, result.Err)
			require.EqualValues(t, len(got), result.Value)
			got = append(got, result.Key)
		}
	}
	require.Equal(t, want, got)
	require.True(t, pages[0].Complete)
	require.False(t, pages[1].Complete, "only the first page waits")
	for page, err := range c.List(t.Context(), "page:", client.Limit(10), client.From(pages[0].Next)) {
		require.NoError(t, err)
		require.Equal(t, "page:10", page.Results[0].Key)
		break
	}
}

func TestListThatCannotWaitIsNotComplete(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	_, err := c.Set(t.Context(), "a", 1)
	require.NoError(t, err)
	pages := 0
	for page, err := range c.List(t.Context(), "", client.Wait(1)) {
		require.NoError(t, err)
		require.False(t, page.Complete)
		require.Empty(t, page.Results, "there is no worker")
		pages++
	}
	require.Equal(t, 1, pages)
}

func TestListEndsAfterAnError(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	for _, option := range []client.Option{client.Limit(1001), client.From("not a cursor"), client.Min(0)} {
		var errs []error
		for _, err := range c.List(t.Context(), "page:", option) {
			errs = append(errs, err)
		}
		require.Len(t, errs, 1)
		require.True(t, client.IsCode(errs[0], client.CodeInvalidQuery), errs[0])
	}
}
