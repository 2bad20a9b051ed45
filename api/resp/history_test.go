package resp_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Each increment is a record, so the increments of one request must not become one operation.
func TestIncrementsOfACounterWithAHistoryAreNotAddedUp(t *testing.T) {
	t.Parallel()
	var r recorder
	recorded := func(key counter.Key) bool { return key == "a" }
	w := serve(t, &r, resp.Options{Recorded: recorded}).dial(t)
	require.Equal(t, []string{":101", ":103", ":101", ":102"}, w.do("INCR a", "INCRBY a 3", "INCR b", "INCR b"))
	require.Equal(t, []string{"increment a 1, increment a 3, increment b 2 in 2"}, r.all())
}

// callers implements resp.Counters, and remembers the caller of each operation.
type callers struct{ names []string }

func (c *callers) Do(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
	for _, op := range ops {
		name := "nobody"
		if op.Origin != nil {
			name = op.Origin.Caller
		}
		c.names = append(c.names, name)
	}
	return make([]counter.Result, len(ops))
}

func TestOperationsHaveTheNameOfTheirKeyAsCaller(t *testing.T) {
	t.Parallel()
	var c callers
	keys := keyring(t, 0)
	w := serve(t, &c, resp.Options{Keys: keys}).dial(t)
	w.do("AUTH token-web", "INCR a", "SET b 1", "MULTI", "INCR a", "EXEC", "AW.IDEM x INCR a")
	require.Equal(t, []string{"web", "web", "web", "web"}, c.names)

	c.names = nil
	renamed, err := auth.ParseList(fmt.Sprintf("site:%x:read+write", sha256.Sum256([]byte("token-web"))))
	require.NoError(t, err)
	require.NoError(t, keys.Replace(renamed))
	w.do("INCR a")
	require.Equal(t, []string{"site"}, c.names)

	c.names = nil
	serve(t, &c, resp.Options{}).dial(t).do("INCR a")
	require.Equal(t, []string{"nobody"}, c.names, "without keys")
}
