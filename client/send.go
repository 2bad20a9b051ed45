package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswerBytes bounds an answer: a batch of 10,000 operations that all fail has some MiB.
const maxAnswerBytes = 32 << 20

// request is a request that may be sent several times.
type request struct {
	doing    string // for errors
	method   string
	path     string // escaped, with the query
	body     []byte // nil: none
	header   map[string]string
	write    bool          // it changes something
	safe     bool          // repeating it changes nothing that one attempt would not: a read, or a write with an Idempotency-Key
	patience time.Duration // how long the server itself may wait
	attempts int           // 0: Options.Attempts
}

// answer is a successful answer.
type answer struct {
	status   int
	body     []byte
	replayed bool // the write was applied by an earlier request
	doubt    bool // an earlier attempt had no answer
}

// decode reads the body into target.
func (a *answer) decode(target any) error {
	if err := json.Unmarshal(a.body, target); err != nil {
		return fmt.Errorf("the answer is not afterwrite's: %w", err)
	}
	return nil
}

// attempt sends a request once. Its error is nil or complete, except for Attempts and earlier attempts.
func (c *Client) attempt(ctx context.Context, r *request) (*answer, *Error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout+r.patience)
	defer cancel()
	var sent atomic.Bool // whether there was a connection that the request may have been written to
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})

	response, err := c.roundTrip(ctx, r)
	if err != nil {
		return nil, r.noAnswer(err, sent.Load())
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return nil, r.noAnswer(fmt.Errorf("read the answer: %w", err), true)
	case len(body) > maxAnswerBytes:
		return nil, r.noAnswer(errors.New("the answer is longer than any of afterwrite's"), true)
	case response.StatusCode >= 200 && response.StatusCode < 300:
		return &answer{
			status: response.StatusCode, body: body, replayed: response.Header.Get("Idempotent-Replayed") == "true",
		}, nil
	}
	return nil, r.failed(response, body)
}

func (c *Client) roundTrip(ctx context.Context, r *request) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", c.options.UserAgent)
	request.Header.Set("Accept", "application/json")
	if r.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.options.APIKey != "" {
		request.Header.Set("Authorization", "Bearer "+c.options.APIKey)
	}
	for name, value := range r.header {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	return c.http.Do(request)
}

// noAnswer is the error of an attempt without a usable answer.
func (r *request) noAnswer(cause error, sent bool) *Error {
	e := &Error{Code: CodeNoAnswer, cause: cause, applied: AppliedUnknown, repeat: true}
	if !r.write || !sent {
		e.applied = AppliedNo
	}
	return e
}

// failed is the error of an attempt with an error answer.
func (r *request) failed(response *http.Response, body []byte) *Error {
	p := problem{Status: response.StatusCode}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/problem+json") {
		_ = json.Unmarshal(body, &p) // without it the status decides
	}
	p.Status = response.StatusCode
	e := p.error()
	e.RequestID = response.Header.Get("X-Request-ID")
	e.RetryAfter = retryAfter(response.Header.Get("Retry-After"))
	if !r.write {
		e.applied = AppliedNo
	}
	return e
}

// retryAfter parses the header: seconds, or a date. It returns 0 for anything else.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 1_000_000)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
