package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/bench/world"
)

const (
	// fillBatch is how many operations a request has that only brings keys into a state, and fillClients how many such
	// requests are under way: fast, and far from what the api refuses.
	fillBatch   = 5000
	fillClients = 2
)

// increments is the body of a batch that increments count counters by 1: first, first + step, and so on.
func increments(first, step, count int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"operations":[`)
	for i := range count {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"op":"increment","key":"%s","by":1}`, world.Key(first+i*step))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// postBatch sends a batch, and requires that it was taken as a whole.
func postBatch(ctx context.Context, api string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/v1/batch", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	if response.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("batch: status %d: %.300s", response.StatusCode, answer)
	}
	return nil
}

// fill increments count counters, each once: 0, step, 2 * step and so on.
func fill(ctx context.Context, api string, step, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillClients)
	for from := 0; from < count; from += fillBatch {
		group.Go(func() error {
			return postBatch(ctx, api, increments(from*step, step, min(fillBatch, count-from)))
		})
	}
	return group.Wait()
}
