package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
)

func TestParseInfo(t *testing.T) {
	t.Parallel()
	r := cache.ParseInfo("# Server\r\nredis_version:7.0.15\r\nrole:master\r\nused_memory:50\r\nmaxmemory:200\r\naof_enabled:1\r\n" +
		"aof_last_write_status:err\r\naof_last_bgrewrite_status:ok\r\nuptime_in_seconds:61\r\n")
	require.InDelta(t, 0.25, r.Full(), 0)
	require.True(t, r.AOF && r.AOFFailing && r.AOFWriteFailing && !r.AOFRewriteFailing && r.Known && r.AOFKnown && r.LimitKnown)
	require.Equal(t, 61*time.Second, r.Uptime)
	r = cache.ParseInfo("aof_enabled:0\r\naof_last_write_status:ok\r\n")
	require.False(t, r.AOFFailing || r.LimitKnown)
	r = cache.ParseInfo("loading:1\r\naof_enabled:0\r\n")
	require.False(t, r.AOFKnown, "while it loads, the file counts as off")
	require.Zero(t, r.Full())
}

func TestAtLeastComparesVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"6.2.0": true, "6.2": true, "7.0.15": true, "8.2.1": true, "10.0.0": true,
		"6.0.16": false, "5.0.7": false, "2.8.19": false, "": false, "unknown": false,
	} {
		info := cache.Info{Version: version}
		require.Equal(t, want, info.AtLeast(6, 2), version)
	}
}
