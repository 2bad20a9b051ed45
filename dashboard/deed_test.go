package dashboard

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAsynqmonListsNoMoreThanAHundredTasks(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                           "",
		"page=2":                     "page=2",
		"page=2&size=50":             "page=2&size=50",
		"page=2&size=101":            "page=2&size=100",
		"size=100000000000000000000": "size=100",
		"size=-1":                    "size=100",
		"size=nonsense":              "size=nonsense",
		"size=100000&size=1":         "size=100",
	} {
		u := &url.URL{RawQuery: query}
		boundSize(u)
		require.Equal(t, want, u.RawQuery, query)
	}
}
