package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// client opens a connection for each request, since the process may have been restarted after the last one.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Get returns the body of a response. A status other than 200 is an error.
func Get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

// Metrics holds the metric families of a process by name.
type Metrics map[string]*dto.MetricFamily

// Metrics reads and parses /metrics.
func (p *Process) Metrics(ctx context.Context) (Metrics, error) {
	p.scraped = time.Now()
	text, err := Get(ctx, p.URL+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	return families, nil
}

// Sum adds up all series of a counter or gauge. It returns 0 if there is no such metric.
func (m Metrics) Sum(name string) float64 {
	var sum float64
	for _, metric := range m[name].GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

// SumOf adds up the series of a counter that have the given value of the label.
func (m Metrics) SumOf(name, label, value string) float64 {
	var sum float64
	for _, metric := range m[name].GetMetric() {
		for _, pair := range metric.GetLabel() {
			if pair.GetName() == label && pair.GetValue() == value {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}
