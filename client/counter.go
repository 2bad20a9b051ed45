package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"
)

// Counter is the state of a counter in an answer.
type Counter struct {
	Key     string
	Value   int64
	Version int64 // how many operations were accepted on the key

	// Known tells whether the answer has Value and Version. It has none with Minimal, after a write that was accepted while Postgres
	// could not be read, and after a delete that did not wait.
	Known    bool
	Deleted  bool // there is no counter now: the write was a delete
	Synced   bool // Postgres has this version
	Replayed bool // the write was applied by an earlier request with the same IdempotencyKey, and this is the answer to that

	// SyncedVersion is a version that Postgres has, after a Get with Wait, else 0.
	SyncedVersion int64
}

// counterJSON is a Counter, a deleted one, or a failed operation.
type counterJSON struct {
	Key           string   `json:"key"`
	Value         *int64   `json:"value"`
	Version       *int64   `json:"version"`
	Synced        bool     `json:"synced"`
	SyncedVersion int64    `json:"synced_version"`
	Deleted       bool     `json:"deleted"`
	Replayed      bool     `json:"replayed"`
	Error         *problem `json:"error"`
}

func (j *counterJSON) counter() Counter {
	c := Counter{
		Key: j.Key, Deleted: j.Deleted, Synced: j.Synced, Replayed: j.Replayed, SyncedVersion: j.SyncedVersion,
		Known: j.Value != nil || (j.Deleted && j.Version != nil),
	}
	if j.Value != nil {
		c.Value = *j.Value
	}
	if j.Version != nil {
		c.Version = *j.Version
	}
	return c
}

// Get reads a counter. It fails with CodeNotFound if there is none.
func (c *Client) Get(ctx context.Context, key string, opts ...Option) (Counter, error) {
	o, err := options(kindGet, opts)
	if err != nil {
		return Counter{}, err
	}
	r := &request{doing: "get " + key, method: http.MethodGet, path: path(key), safe: true}
	if o.waits || o.version > 0 {
		query := url.Values{"wait": {"synced"}}
		r.patience = 5 * time.Second // the server's default
		if o.waits {
			query.Set("timeout", o.wait.String())
			r.patience = o.wait
		}
		if o.version > 0 {
			query.Set("version", strconv.FormatInt(o.version, 10))
		}
		r.path += "?" + query.Encode()
	}
	return c.one(ctx, key, r, &o)
}

// Increment adds by, which may be negative. A counter that does not exist counts as 0.
func (c *Client) Increment(ctx context.Context, key string, by int64, opts ...Option) (Counter, error) {
	o, err := options(kindIncrement, opts)
	if err != nil {
		return Counter{}, err
	}
	body := struct {
		By  int64  `json:"by"`
		Min *int64 `json:"min,omitempty"`
		Max *int64 `json:"max,omitempty"`
	}{by, o.min, o.max}
	r := &request{doing: "increment " + key, method: http.MethodPost, path: path(key) + "/increment", body: encode(body)}
	return c.write(ctx, key, r, &o)
}

// Set sets the value.
func (c *Client) Set(ctx context.Context, key string, value int64, opts ...Option) (Counter, error) {
	o, err := options(kindSet, opts)
	if err != nil {
		return Counter{}, err
	}
	body := struct {
		Value int64 `json:"value"`
	}{value}
	return c.write(ctx, key, &request{doing: "set " + key, method: http.MethodPut, path: path(key), body: encode(body)}, &o)
}

// Delete deletes a counter. It succeeds if there is none.
func (c *Client) Delete(ctx context.Context, key string, opts ...Option) (Counter, error) {
	o, err := options(kindDelete, opts)
	if err != nil {
		return Counter{}, err
	}
	counter, err := c.write(ctx, key, &request{doing: "delete " + key, method: http.MethodDelete, path: path(key)}, &o)
	counter.Deleted = err == nil
	return counter, err
}

// write sends a write to one counter.
func (c *Client) write(ctx context.Context, key string, r *request, o *callOptions) (Counter, error) {
	o.prepare(r)
	return c.one(ctx, key, r, o)
}

// prepare sets what all writes have in common.
func (o *callOptions) prepare(r *request) {
	if o.key == "" && !o.once {
		o.key = rand.Text() // 128 bits and more
	}
	r.write, r.safe = true, o.key != ""
	r.header = map[string]string{"Prefer": o.prefer(), "If-Match": o.ifMatch, "Idempotency-Key": o.key}
	r.patience = o.wait
	if o.durability != "" && o.wait == 0 {
		r.patience = 5 * time.Second // the longest default of the server
	}
}

// one sends a request about one counter.
func (c *Client) one(ctx context.Context, key string, r *request, o *callOptions) (Counter, error) {
	if key == "" {
		return Counter{}, invalid(CodeInvalidKey, "the key is empty; nothing was sent")
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return Counter{}, err
	}
	if a.status == http.StatusNoContent {
		waited := (o.waits && o.wait > 0) || o.durability == InPostgres
		return Counter{Key: key, Synced: waited, Replayed: a.replayed}, nil
	}
	var j counterJSON
	if err := a.decode(&j); err != nil {
		return Counter{}, r.unreadable(err)
	}
	counter := j.counter()
	counter.Replayed = counter.Replayed || a.replayed
	return counter, nil
}

// unreadable is the error of a successful answer that cannot be decoded: the request has reached something else.
func (r *request) unreadable(cause error) *Error {
	e := r.noAnswer(cause, true)
	e.doing, e.Attempts = r.doing, 1
	return e
}

// path returns the path of a counter. PathEscape escapes slashes, too.
func path(key string) string { return "/v1/counters/" + url.PathEscape(key) }

// encode encodes a body of this package: integers and valid strings, which cannot fail.
func encode(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // a key of < would take six times its length, and a batch of such keys be too large
	if err := encoder.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// checkKey refuses a key that JSON cannot carry: encoding/json would replace invalid UTF-8, and so count on another key.
func checkKey(key string) *Error {
	const maxBytes = 255
	switch {
	case key == "" || len(key) > maxBytes:
		return invalid(CodeInvalidKey, "the key has %d bytes: it must have 1 to %d", len(key), maxBytes)
	case !utf8.ValidString(key):
		return invalid(CodeInvalidKey, "the key %q is not valid UTF-8", key)
	}
	return nil
}
