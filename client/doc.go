// Package client is the Go client of afterwrite's HTTP API. It uses only the standard library.
//
//	c, err := client.New("http://127.0.0.1:8080", client.Options{})
//	defer c.Close()
//
//	likes, err := c.Increment(ctx, "likes:42", 1)               // likes.Value is the new value
//	_, err = c.Increment(ctx, "seats", -1, client.Min(0))       // fails with CodeOutOfBounds rather than go below 0
//	_, err = c.Set(ctx, "seats", 50, client.IfMatch(7))         // only if the counter still has version 7
//	likes, err = c.Get(ctx, "likes:42")
//	for page, err := range c.List(ctx, "likes:") { ... }        // page.Results, in the order of the keys
//	results, err := c.Batch(ctx, []client.Operation{client.Add("a", 1), client.Put("b", 7), client.Remove("c")})
//
// # Retries
//
// A Client retries what is safe to repeat. It sends an Idempotency-Key with each write, a random one unless IdempotencyKey gives
// yours, so a write counts once although it was sent twice. It repeats a request after a connection error, a 429, a 503 and a gateway's
// 502 or 504, with exponential backoff and full jitter, not before Retry-After has passed, up to Options.Attempts times, and not
// beyond the deadline of the context.
//
// A record of each Idempotency-Key takes about 200 bytes of Redis for a day. Use a Batcher for frequent increments, or Once, which
// sends a write without one and does not repeat it once the server may have it.
//
// # Errors
//
// Every error of a request is an *Error. Switch on its Code, or use IsCode. Its method Applied tells whether the write was applied:
// yes, no, or unknown. errors.Is(err, ErrOutcomeUnknown) is true for the last:
//
//	_, err := c.Increment(ctx, "seats", -1, client.Min(0))
//	switch {
//	case client.IsCode(err, client.CodeOutOfBounds): // sold out
//	case errors.Is(err, client.ErrOutcomeUnknown): // repeat it with the same IdempotencyKey, or tell somebody
//	case err != nil: // not applied
//	}
//
// # Batcher
//
// A Batcher adds up increments in memory and sends the sums, some times a second, in one request. Use it for views and other events
// that are too many for a request each.
package client
