package resp_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestSCANListsWhatPostgresHasInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.dial(t)
	w.one("MSET user:1 1 user:2 2 user:3 3 user:* 4 other 5")
	require.Equal(t, "*2 0 *0", w.one("SCAN 0"))
	b.flush(t)
	require.Equal(t, "*2 0 *5 other user:* user:1 user:2 user:3", w.one("SCAN 0"))
	require.Equal(t, "*2 0 *1 other", w.one("SCAN 0 MATCH other"))
	require.Equal(t, "*2 0 *0", w.one("SCAN 0 MATCH othe"))
	require.Equal(t, `*2 0 *1 user:*`, w.one(`SCAN 0 MATCH user:\*`))
	require.Equal(t, `*2 0 *1 user:*`, w.one(`SCAN 0 MATCH user:\**`))
	require.Equal(t, "*2 0 *0", w.one("SCAN 0 TYPE hash"))

	var found []string
	for cursor := "0"; len(found) == 0 || cursor != "0"; {
		fields := strings.Fields(w.one("SCAN " + cursor + " MATCH user:* COUNT 2 TYPE string"))
		cursor, found = fields[1], append(found, fields[3:]...)
	}
	require.Equal(t, []string{"user:*", "user:1", "user:2", "user:3"}, found)
}

func TestSCANWithAPrefixedKeyListsItsCountersOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *resp.Options) { o.Keys = keyring(t, 0) })
	w := b.dial(t)
	require.Equal(t, "+OK", w.one("AUTH token-web"))
	w.one("MSET team:a 1 b 2")
	b.flush(t)
	require.Equal(t, "+OK", w.one("AUTH token-team"))
	require.Equal(t, "*2 0 *1 team:a", w.one("SCAN 0"))
	require.Contains(t, w.one("SCAN 0 MATCH b*"), "-NOPERM")
}

// pages implements resp.Lister with full pages of long keys, and counts them.
type pages struct{ listed atomic.Int64 }

func (p *pages) List(_ context.Context, _ string, _ counter.Key, limit int) (catalog.Page, error) {
	p.listed.Add(1)
	page := catalog.Page{Next: "next", Results: make([]counter.Result, limit)}
	for i := range page.Results {
		page.Results[i].Counter.Key = counter.Key(strings.Repeat("k", 255))
	}
	return page, nil
}

func TestLargeAnswersOfAPipelineAreSentBeforeTheNextCommand(t *testing.T) {
	t.Parallel()
	const scans = 50 // they fit into the first read
	var p pages
	w := serve(t, always(ok), resp.Options{Lister: &p}).dial(t)
	w.write(strings.Repeat("SCAN 0 COUNT 1000\r\n", scans))
	_, err := w.r.Peek(1)
	require.NoError(t, err)
	require.Less(t, p.listed.Load(), int64(scans), "answers of 260 KB are collected")
}

func TestINFOHasTheBacklog(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{Version: "1.2.3", Backlog: func(context.Context) (cache.Backlog, error) {
		return cache.Backlog{Dirty: 7, Dead: 2, Retrying: 1}, nil
	}})
	w := b.dial(t)
	all := w.one("INFO")
	for _, line := range []string{
		"# Server", "redis_version:7.2.0", "afterwrite_version:1.2.3", "# Clients", "connected_clients:1", "# Stats",
		"# Afterwrite", "complete:1", "dirty:7", "retrying:1", "dead:2", "oldest_dirty_ms:0",
	} {
		require.Contains(t, all, line+"\r\n")
	}
	only := w.one("INFO afterwrite")
	require.True(t, strings.HasPrefix(only, "# Afterwrite\r\n"), only)
	require.NotContains(t, only, "# Server")
}

func TestEveryCommandIsDescribed(t *testing.T) {
	t.Parallel()
	w := serve(t, always(ok), resp.Options{}).dial(t)
	count := strings.TrimPrefix(w.one("COMMAND COUNT"), ":")
	require.True(t, strings.HasPrefix(w.one("COMMAND"), "*"+count+" "))
	require.True(t, strings.HasPrefix(w.one("COMMAND LIST"), "*"+count+" "))
	docs := w.one("COMMAND DOCS")
	require.NotContains(t, docs, "summary  group", "a command has no summary")
	w.one("HELLO 3")
	require.True(t, strings.HasPrefix(w.one("COMMAND DOCS"), "%"+count+" "))
	require.Equal(t, "%1 get %2 summary Returns the value of a counter. group string", w.one("COMMAND DOCS get nope"))
	require.Equal(t, fmt.Sprintf("%%1 maxclients %d", 4096), w.one("CONFIG GET maxclients"))
}
