package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestMetricsCountWritesAndRejections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "a", "1")
	b.send(t, http.MethodPost, "/v1/counters/a/increment", "")
	b.send(t, http.MethodDelete, "/v1/counters/a", "", "Prefer: return=minimal")
	b.send(t, http.MethodGet, "/v1/counters/a", "")
	b.send(t, http.MethodPut, "/v1/counters/a", `{"value":1.5}`)
	b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"increment","key":"b"}`, `{"op":"increment","key":"b"}`,
		`{"op":"delete","key":"b"}`, `{"op":"set","key":"b"}`, `{"op":"set","key":""}`))
	b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"set","key":"b"}`, `{"op":"set","key":"b"}`))
	b.send(t, http.MethodGet, "/nothing", "")

	require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(`
# HELP afterwrite_writes_total Accepted write operations. Each operation of a batch or a stream counts.
# TYPE afterwrite_writes_total counter
afterwrite_writes_total{op="delete"} 2
afterwrite_writes_total{op="increment"} 3
afterwrite_writes_total{op="set"} 1
`), "afterwrite_writes_total"))

	text := b.send(t, http.MethodGet, "/metrics", "").text
	for _, line := range []string{
		`afterwrite_rejected_total{reason="not_found"} 2`,
		`afterwrite_rejected_total{reason="invalid_body"} 4`,
		`afterwrite_rejected_total{reason="invalid_key"} 1`,
		`afterwrite_rejected_total{reason="cache_full"} 0`,
		`afterwrite_write_duration_seconds_count 4`,
		`afterwrite_write_duration_seconds_bucket{le="0.0001"}`,
		`afterwrite_write_duration_seconds_bucket{le="10"} 4`,
	} {
		require.Contains(t, text, line)
	}
}

func TestEveryCodeIsCountedFromTheStart(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})

	n, err := testutil.GatherAndCount(b.registry, "afterwrite_rejected_total")

	require.NoError(t, err)
	require.Len(t, api.Statuses(), n)
}
