package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// fillBatch is the number of operations in a request that prepares keys, and fillClients the number of such requests in
	// flight: fast, and well below the api's limits.
	fillBatch   = 5000
	fillClients = 4
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

// post sends JSON with a Prefer header, which may be empty, and returns an error unless all of it was accepted.
func post(ctx context.Context, url string, body []byte, prefer string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if prefer != "" {
		request.Header.Set("Prefer", prefer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if response.StatusCode/100 != 2 || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("%s: status %d: %.300s", url, response.StatusCode, answer)
	}
	return nil
}

// postBatch sends a batch.
func postBatch(ctx context.Context, api string, body []byte, prefer string) error {
	return post(ctx, api+"/v1/batch", body, prefer)
}

// postIncrement increments one counter.
func postIncrement(ctx context.Context, api, key string) error {
	return post(ctx, api+"/v1/counters/"+key+"/increment", []byte(`{"by":1}`), "")
}

// fill increments count counters, each once: 0, step, 2 * step and so on.
func fill(ctx context.Context, api string, step, count int) error {
	return fillWith(ctx, api, step, count, "")
}

// fillBlind increments the first count counters and asks for no values, so that the api does not read cold keys from Postgres.
func fillBlind(ctx context.Context, api string, count int) error {
	return fillWith(ctx, api, 1, count, "return=minimal")
}

func fillWith(ctx context.Context, api string, step, count int, prefer string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillClients)
	for from := 0; from < count; from += fillBatch {
		group.Go(func() error {
			return postBatch(ctx, api, increments(from*step, step, min(fillBatch, count-from)), prefer)
		})
	}
	return group.Wait()
}
