package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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

// request is one operation, or a batch of increments.
type request struct {
	steps   []keyed
	minimal bool   // the answer need not have a value; only over HTTP
	variant int    // a random number, by which a client chooses between ways to send the request
	number  uint32 // of the request, in its X-Request-Id; 0: none. Only over HTTP
}

// keyed is an operation on a key.
type keyed struct {
	step

	key string
}

// client sends the requests of the load to the apis.
type client interface {
	// do sends a request to one of the apis.
	do(ctx context.Context, api int, r request) answer
	close()
}

// httpClient sends requests over HTTP. It never retries; net/http retries only GET requests.
type httpClient struct {
	bases []string // URLs of the apis, such as "http://127.0.0.1:20000"
	http  http.Client
}

func newHTTPClient(bases []string, connections int) *httpClient {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	return &httpClient{bases: bases, http: http.Client{Transport: transport, Timeout: requestTimeout}}
}

func (c *httpClient) close() { c.http.CloseIdleConnections() }

func (c *httpClient) do(ctx context.Context, api int, r request) answer {
	prefer := ""
	if r.minimal {
		prefer = "return=minimal"
	}
	method, path, body := r.http()
	status, text, err := world.SendAs(ctx, &c.http, method, c.bases[api]+path, body, prefer, requestID(r.number))
	if err != nil {
		return unanswered(err)
	}
	return decode(status, text)
}

// requestID returns the X-Request-Id of a request with a number.
func requestID(number uint32) string {
	if number == 0 {
		return ""
	}
	return "chaos-" + strconv.FormatUint(uint64(number), 10)
}

// http returns the parts of an HTTP request.
func (r request) http() (method, path, body string) {
	if len(r.steps) > 1 {
		var operations strings.Builder
		for _, s := range r.steps {
			fmt.Fprintf(&operations, `,{"op":"increment","key":%q,"by":%d}`, s.key, s.amount)
		}
		return http.MethodPost, "/v1/batch", `{"operations":[` + operations.String()[1:] + `]}`
	}
	s := r.steps[0]
	path = "/v1/counters/" + url.PathEscape(s.key)
	switch s.kind {
	case stepSet:
		return http.MethodPut, path, fmt.Sprintf(`{"value":%d}`, s.amount)
	case stepIncrement:
		return http.MethodPost, path + "/increment", fmt.Sprintf(`{"by":%d}`, s.amount)
	case stepDelete:
		return http.MethodDelete, path, ""
	case stepGet:
	}
	return http.MethodGet, path, ""
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
