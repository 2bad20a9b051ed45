package worker

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Another worker may write the table once it is repaired, while this one gets none of its counters.
func TestAMappingIsNotBrokenForEver(t *testing.T) {
	t.Parallel()
	mappings, err := mapping.Parse([]byte(`mappings: [{name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}]`))
	require.NoError(t, err)
	registry, log := prometheus.NewRegistry(), new(localtest.Buffer)
	m := newMetrics(registry, slog.New(slog.NewTextHandler(log, nil)), mappings, func() bool { return true })
	require.Equal(t, leastBrokenFor, m.brokenFor)
	gauge := "# HELP afterwrite_mapping_broken 1 while the table of a mapping cannot be written: its schema or a permission is wrong.\n" +
		"# TYPE afterwrite_mapping_broken gauge\nafterwrite_mapping_broken{mapping=\"likes\"} "
	requireGauge := func(value string) {
		t.Helper()
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(gauge+value+"\n"), "afterwrite_mapping_broken"))
	}
	requireGauge("0")
	failed := &store.MappingError{Mapping: "likes", Err: errors.New("no such column")}
	m.breaks("likes", failed)
	m.breaks("likes", failed)
	requireGauge("1")
	require.Equal(t, map[string]string{"likes": "no such column"}, m.brokenMappings())
	require.Equal(t, 1, strings.Count(log.String(), "cannot be written"))

	m.broken["likes"] = breakage{failed, time.Now().Add(-leastBrokenFor)} // its last failure was then
	requireGauge("0")
	require.Empty(t, m.brokenMappings())
	m.breaks("likes", failed)
	require.Equal(t, 2, strings.Count(log.String(), "cannot be written"), "it is broken again")
	m.mapped(&store.Upserted{Mapped: []store.MappedCount{{Mapping: "likes", Rows: 1}}})
	requireGauge("0")
	require.Contains(t, log.String(), "a mapped table can be written again")
}
