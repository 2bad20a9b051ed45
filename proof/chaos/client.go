package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/proof/world"
)

// requestTimeout is longer than the api's time limit for Redis, so that the api nearly always answers first.
const requestTimeout = 15 * time.Second

// answer is the outcome of a request, or of one operation of a batch.
type answer struct {
	outcome outcome
	reason  string   // "acknowledged", the error code, or the failure of the connection
	reading *reading // nil if the answer has no value
	synced  bool
	missing bool     // the counter does not exist
	results []answer // one for each operation of a batch; nil if this outcome is the outcome of all
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
	minimal bool // Prefer: return=minimal
}

func counterPath(key string) string { return "/v1/counters/" + url.PathEscape(key) }

// client sends requests to the apis. It never retries; net/http retries only GET requests.
type client struct {
	bases []string // URLs of the apis, such as "http://127.0.0.1:20000"
	http  http.Client
}

func newClient(bases []string, connections int) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	return &client{bases: bases, http: http.Client{Transport: transport, Timeout: requestTimeout}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// do sends a request to one of the apis.
func (c *client) do(ctx context.Context, api int, r request) answer {
	prefer := ""
	if r.minimal {
		prefer = "return=minimal"
	}
	status, body, err := world.Send(ctx, &c.http, r.method, c.bases[api]+r.path, r.body, prefer)
	if err != nil {
		return unanswered(err)
	}
	return decode(status, body)
}

// unanswered classifies a failed request: without a connection nothing was sent; after a broken connection the outcome is unknown.
func unanswered(err error) answer {
	if world.NotSent(err) {
		return answer{outcome: refused, reason: "no connection"}
	}
	return answer{outcome: indeterminate, reason: "no answer"}
}

// document has the fields of all response bodies of the API.
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
	a := success(d)
	if status == http.StatusAccepted {
		a.reason = "acknowledged, value unknown"
	}
	for _, r := range d.Results {
		if r.Error != nil {
			a.results = append(a.results, problem(r.Error.Code))
		} else {
			a.results = append(a.results, success(r))
		}
	}
	return a
}

func success(d document) answer {
	a := answer{outcome: acknowledged, reason: "acknowledged", synced: d.Synced}
	if d.Value != nil && d.Version != nil {
		a.reading = &reading{value: *d.Value, version: *d.Version}
	}
	return a
}

// problem derives the outcome from an error code. This load must not cause any other codes than these.
func problem(code string) answer {
	o, expected := world.OutcomeOf(code)
	a := answer{outcome: o, reason: code, missing: counter.Code(code) == counter.CodeNotFound}
	if !expected {
		a.reason = fmt.Sprintf("unexpected %q", code)
	}
	return a
}
