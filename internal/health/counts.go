package health

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Counts are totals since the process started. They never decrease.
type Counts struct {
	Writes   int64            `json:"writes,omitempty"`   // accepted operations
	Rejected map[string]int64 `json:"rejected,omitempty"` // requests answered with a problem, by its code
	Rows     int64            `json:"rows,omitempty"`     // rows that Postgres committed
	Deferred int64            `json:"hindered,omitempty"` // rows deferred because they were locked or slow; each time counts
	Sweeps   int64            `json:"sweeps,omitempty"`   // sweeps that a scheduler sent
	Requests *Requests        `json:"requests,omitempty"` // nil: not an api, or of a version that does not count them

	// Mappings are the counts of a worker for each of its mappings, by name. There are at most 100.
	Mappings map[string]MappingCounts `json:"mappings,omitempty"`

	// Lag is a cumulative histogram of the sync lag of flushed keys: Lag[i] counts the keys with at most LagBounds[i] seconds. Its last
	// element has no bound and counts all keys.
	LagBounds []float64 `json:"lag_bounds,omitempty"`
	Lag       []int64   `json:"lag,omitempty"`
}

// MappingCounts are the counts of one mapping.
type MappingCounts struct {
	Rows    int64 `json:"rows,omitempty"`    // columns that were written; each time counts
	Missing int64 `json:"missing,omitempty"` // counters that were flushed although their row does not exist
	Refused int64 `json:"refused,omitempty"` // attempts that were refused
}

// count reads the counts from the process's Prometheus metrics. Requests has all API keys.
func count(gatherer prometheus.Gatherer) (Counts, error) {
	families, err := gatherer.Gather()
	if err != nil {
		return Counts{}, fmt.Errorf("gather metrics: %w", err)
	}
	var c Counts
	for _, family := range families {
		switch family.GetName() {
		case "afterwrite_writes_total":
			c.Writes = sum(family)
		case "afterwrite_flushed_rows_total":
			c.Rows = sum(family)
		case "afterwrite_hindered_rows_total":
			c.Deferred = sum(family)
		case "afterwrite_sweeps_enqueued_total":
			c.Sweeps = sum(family)
		case "afterwrite_rejected_total":
			c.Rejected = byLabel(family)
		case "afterwrite_api_requests_total":
			c.Requests = &Requests{ByKey: byLabel(family)}
		case "afterwrite_sync_lag_seconds":
			c.LagBounds, c.Lag = buckets(family)
		case "afterwrite_mapping_rows_total":
			c.addMapped(family, func(m *MappingCounts, n int64) { m.Rows = n })
		case "afterwrite_mapping_missing_total":
			c.addMapped(family, func(m *MappingCounts, n int64) { m.Missing = n })
		case "afterwrite_mapping_refused_total":
			c.addMapped(family, func(m *MappingCounts, n int64) { m.Refused = n })
		}
	}
	return c, nil
}

// addMapped sets a count of each mapping, even if it is 0: its name says that the worker has the mapping.
func (c *Counts) addMapped(family *dto.MetricFamily, set func(*MappingCounts, int64)) {
	if c.Mappings == nil {
		c.Mappings = make(map[string]MappingCounts)
	}
	for _, metric := range family.GetMetric() {
		if len(metric.GetLabel()) == 1 {
			name := metric.GetLabel()[0].GetValue()
			counts := c.Mappings[name]
			set(&counts, int64(metric.GetCounter().GetValue()))
			c.Mappings[name] = counts
		}
	}
}

func sum(family *dto.MetricFamily) int64 {
	var n float64
	for _, metric := range family.GetMetric() {
		n += metric.GetCounter().GetValue()
	}
	return int64(n)
}

// byLabel returns the values of a family with one label, without zeros.
func byLabel(family *dto.MetricFamily) map[string]int64 {
	values := make(map[string]int64)
	for _, metric := range family.GetMetric() {
		if n := int64(metric.GetCounter().GetValue()); n > 0 && len(metric.GetLabel()) == 1 {
			values[metric.GetLabel()[0].GetValue()] = n
		}
	}
	return values
}

func buckets(family *dto.MetricFamily) (bounds []float64, counts []int64) {
	if len(family.GetMetric()) != 1 {
		return nil, nil
	}
	histogram := family.GetMetric()[0].GetHistogram()
	for _, bucket := range histogram.GetBucket() {
		bounds = append(bounds, bucket.GetUpperBound())
		counts = append(counts, int64(bucket.GetCumulativeCount())) //nolint:gosec // a count fits into 63 bits
	}
	return bounds, append(counts, int64(histogram.GetSampleCount())) //nolint:gosec // as above
}
