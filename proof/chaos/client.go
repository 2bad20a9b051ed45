package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// requestTimeout is longer than the api's own time limit for Redis, so that the api nearly always answers first.
const requestTimeout = 15 * time.Second

// answer is the outcome of a request, or of one operation of a batch.
type answer struct {
	outcome outcome
	reason  string   // "acknowledged", the problem's code, or what happened to the connection
	reading *reading // nil: the answer has none
	synced  bool
	missing bool     // a read of a counter that does not exist
	results []answer // of a batch; nil: all operations have this outcome
}

func (a answer) String() string {
	if a.reading == nil {
		return a.reason
	}
	return fmt.Sprintf("%s: value %d, version %d, synced %t", a.reason, a.reading.value, a.reading.version, a.synced)
}

// request is an HTTP request.
type request struct {
	method  string
	path    string
	body    string
	minimal bool
}

func counterPath(key string) string { return "/v1/counters/" + url.PathEscape(key) }

// client sends requests to the apis. It never repeats one; net/http repeats only a GET.
type client struct {
	bases []string // of the apis, "http://127.0.0.1:20000"
	http  http.Client
}

func newClient(bases []string, connections int) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	return &client{bases: bases, http: http.Client{Transport: transport, Timeout: requestTimeout}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// do sends a request to the api with that number.
func (c *client) do(ctx context.Context, api int, r request) answer {
	q, err := http.NewRequestWithContext(ctx, r.method, c.bases[api]+r.path, strings.NewReader(r.body))
	if err != nil {
		return unanswered(err)
	}
	if r.body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	if r.minimal {
		q.Header.Set("Prefer", "return=minimal")
	}
	response, err := c.http.Do(q)
	if err != nil {
		return unanswered(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return unanswered(err)
	}
	return decode(response.StatusCode, body)
}

// unanswered distinguishes a connection that could not be made, so that nothing was sent, from one that broke.
func unanswered(err error) answer {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return answer{outcome: refused, reason: "no connection"}
	}
	return answer{outcome: indeterminate, reason: "no answer"}
}

// document covers every body that the API answers with.
type document struct {
	Value   *int64     `json:"value"`
	Version *int64     `json:"version"`
	Synced  bool       `json:"synced"`
	Code    string     `json:"code"`
	Error   *document  `json:"error"`
	Results []document `json:"results"`
}

func decode(status int, body []byte) answer {
	var d document
	if len(body) > 0 {
		if err := json.Unmarshal(body, &d); err != nil {
			return answer{outcome: indeterminate, reason: "unreadable answer"}
		}
	}
	if status >= http.StatusMultipleChoices {
		return problem(d.Code)
	}
	a := taken(d)
	if status == http.StatusAccepted {
		a.reason = "acknowledged, value unknown"
	}
	for _, r := range d.Results {
		if r.Error != nil {
			a.results = append(a.results, problem(r.Error.Code))
		} else {
			a.results = append(a.results, taken(r))
		}
	}
	return a
}

func taken(d document) answer {
	a := answer{outcome: acknowledged, reason: "acknowledged", synced: d.Synced}
	if d.Value != nil && d.Version != nil {
		a.reading = &reading{value: *d.Value, version: *d.Version}
	}
	return a
}

// problem derives the outcome from what the code promises about the write. A code that this load should not cause is a bug.
func problem(code string) answer {
	a := answer{outcome: refused, reason: code}
	switch counter.Code(code) {
	case counter.CodeBackpressure, counter.CodeOverloaded, counter.CodeCacheFull, counter.CodeCacheUnavailable,
		counter.CodeDatabaseUnavailable:
	case counter.CodeNotFound:
		a.missing = true
	case counter.CodeOutcomeUnknown:
		a.outcome = indeterminate
	default:
		a.outcome = indeterminate
		a.reason = fmt.Sprintf("unexpected %q", code)
	}
	return a
}
