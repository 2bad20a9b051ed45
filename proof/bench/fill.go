package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// fillBatch is the number of operations in each request that fills counters. fillClients is the number of those requests in
	// flight. Both are well below the api's limits.
	fillBatch   = 5000
	fillClients = 4
)

// increments returns the body of a batch of count increments by 1. key returns the number of the counter of operation i.
func increments(count int, key func(i int) int) string {
	var b bytes.Buffer
	b.WriteString(`{"operations":[`)
	for i := range count {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"op":"increment","key":"%s","by":1}`, world.Key(key(i)))
	}
	b.WriteString(`]}`)
	return b.String()
}

// post sends JSON with a Prefer header, which may be empty. It returns an error unless the api accepts all operations.
func post(ctx context.Context, url, body, prefer string) error {
	status, answer, err := world.Send(ctx, http.DefaultClient, http.MethodPost, url, body, prefer)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if status/100 != 2 || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("%s: status %d: %.300s", url, status, answer)
	}
	return nil
}

// postIncrement increments one counter.
func postIncrement(ctx context.Context, api, key string) error {
	return post(ctx, api+"/v1/counters/"+key+"/increment", `{"by":1}`, "")
}

// fill increments the counters 0, step, 2 * step and so on, count in total, each once.
func fill(ctx context.Context, api string, step, count int, prefer string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillClients)
	for from := 0; from < count; from += fillBatch {
		group.Go(func() error {
			body := increments(min(fillBatch, count-from), func(i int) int { return (from + i) * step })
			return post(ctx, api+"/v1/batch", body, prefer)
		})
	}
	return group.Wait()
}
