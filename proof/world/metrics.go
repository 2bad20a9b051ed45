package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// client opens a connection for each request, since the process may have been restarted after the last one.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Get returns the body of a response. A status other than 200 is an error.
func Get(ctx context.Context, url string) ([]byte, error) {
	status, body, err := Send(ctx, client, http.MethodGet, url, "", "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status %d", url, status)
	}
	return body, err
}

// Send sends a request with an optional JSON body and an optional Prefer header. It returns the status and the whole response body.
func Send(ctx context.Context, client *http.Client, method, url, body, prefer string) (status int, response []byte, err error) {
	return SendAs(ctx, client, method, url, body, prefer, "")
}

// SendAs is Send with an optional X-Request-Id header.
func SendAs(ctx context.Context, client *http.Client, method, url, body, prefer, id string) (status int, response []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for name, value := range map[string]string{"Prefer": prefer, "X-Request-Id": id} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	r, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	response, err = io.ReadAll(r.Body)
	return r.StatusCode, response, err
}

// NotSent reports whether err means that no connection was made, so the server has not applied the request.
func NotSent(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
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
