package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// MaxOperations is the server's limit for a batch, and for the keys of Read and Flush.
const MaxOperations = 10_000

// Operation is one operation of a batch. Make it with Add, Put or Remove.
type Operation struct {
	Op    string `json:"op"`
	Key   string `json:"key"`
	By    *int64 `json:"by,omitempty"`
	Value *int64 `json:"value,omitempty"`
	Min   *int64 `json:"min,omitempty"`
	Max   *int64 `json:"max,omitempty"`
	// ID is the operation's Idempotency-Key. "": one made of that of the batch.
	ID string `json:"id,omitempty"`
}

// Add returns an increment.
func Add(key string, by int64) Operation { return Operation{Op: "increment", Key: key, By: &by} }

// Put returns an operation that sets the value.
func Put(key string, value int64) Operation { return Operation{Op: "set", Key: key, Value: &value} }

// Remove returns an operation that deletes the counter.
func Remove(key string) Operation { return Operation{Op: "delete", Key: key} }

// AtLeast returns the increment with a lower bound for the new value. See Min.
func (o Operation) AtLeast(bound int64) Operation {
	o.Min = &bound
	return o
}

// AtMost returns the increment with an upper bound for the new value. See Max.
func (o Operation) AtMost(bound int64) Operation {
	o.Max = &bound
	return o
}

// Result is the result of an operation or a read.
type Result struct {
	Counter

	Err error // an *Error if this operation failed, else nil
}

// Batch carries out 1 to MaxOperations operations. Those on one key keep their order; it is not a transaction. Each has its result, in
// order, with an error if it failed alone.
//
// Batch fails as a whole if the server refused or did not answer the request, and if all operations failed with the same code, which is
// that of the error; but several operations with CodeOutOfBounds fail alone, each with the Value of its counter. Operations that failed
// alone are not repeated, because later ones on their key may have been applied. A request that failed as a whole is.
func (c *Client) Batch(ctx context.Context, operations []Operation, opts ...Option) ([]Result, error) {
	o, err := options(kindBatch, opts)
	if err != nil {
		return nil, err
	}
	return c.batch(ctx, operations, &o, 0)
}

// batch is Batch with a number of attempts; 0: Options.Attempts.
func (c *Client) batch(ctx context.Context, operations []Operation, o *callOptions, attempts int) ([]Result, error) {
	if err := checkCount(len(operations)); err != nil {
		return nil, err
	}
	for i := range operations {
		if err := checkKey(operations[i].Key); err != nil {
			err.Detail = fmt.Sprintf("operation %d: %s; nothing was sent", i, err.Detail)
			return nil, err
		}
	}
	r := &request{
		doing: fmt.Sprintf("batch of %d", len(operations)), method: http.MethodPost, path: "/v1/batch", attempts: attempts,
		body: encode(map[string]any{"operations": operations}),
	}
	o.prepare(r)
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusNoContent {
		return r.results(a, "results", len(operations))
	}
	results := make([]Result, len(operations))
	waited := (o.waits && o.wait > 0) || o.durability == InPostgres
	for i, operation := range operations {
		results[i].Counter = Counter{
			Key: operation.Key, Deleted: operation.Op == "delete", Synced: waited, Replayed: a.replayed,
		}
	}
	return results, nil
}

// Read reads 1 to MaxOperations counters with one request. Each has its result, in order: an error with CodeNotFound if there is no such
// counter.
func (c *Client) Read(ctx context.Context, keys ...string) ([]Result, error) {
	if err := checkCount(len(keys)); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	r := &request{
		doing: fmt.Sprintf("read %d counters", len(keys)), method: http.MethodPost, path: "/v1/read", safe: true,
		body: encode(map[string]any{"keys": keys}),
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return r.results(a, "counters", len(keys))
}

func checkCount(n int) error {
	if n < 1 || n > MaxOperations {
		return invalid(CodeTooManyOperations, "there are %d operations or keys: send 1 to %d; nothing was sent", n, MaxOperations)
	}
	return nil
}

// results decodes a list of counters and errors from a member of the answer. want is their number, or -1 for any.
func (r *request) results(a *answer, member string, want int) ([]Result, error) {
	var lists map[string]json.RawMessage
	if err := a.decode(&lists); err != nil {
		return nil, r.unreadable(err)
	}
	var list []counterJSON
	if err := json.Unmarshal(lists[member], &list); err != nil {
		return nil, r.unreadable(fmt.Errorf("%s of the answer: %w", member, err))
	}
	if want >= 0 && len(list) != want {
		return nil, r.unreadable(fmt.Errorf("the answer has %d results instead of %d", len(list), want))
	}
	results := make([]Result, len(list))
	for i := range list {
		results[i].Counter = list[i].counter()
		if p := list[i].Error; p != nil {
			e := p.error()
			if !r.write {
				e.applied = AppliedNo
			}
			e.inDoubt(a.doubt)
			e.doing = list[i].Key
			results[i].Err = e
		}
	}
	return results, nil
}
