// Package store is the Postgres side: it writes batches of counter states, reads them back, purges tombstones and applies
// the migrations.
//
//	s, err := store.Open(url, store.Options{})        // does not connect: Postgres may be down
//	ahead, err := s.Upsert(ctx, rows)                 // one statement for the batch; never takes a row back
//	ahead, locked, err := s.UpsertUnlocked(ctx, rows) // the same, but returns the keys of rows that others hold locked
//	rows, err := s.Read(ctx, keys)                    // one query
//	switch store.Classify(err) { ... }                // whose fault is it, and is it worth another try
//
// What it promises:
//
//   - No call blocks for longer than its ctx, or than Options.StatementTimeout plus two seconds, even if the server is
//     frozen or its packets disappear: every read and write on the network has a deadline (deadline.go).
//   - A few outage errors in a row open a circuit breaker. Until a probe succeeds every call fails at once with
//     ErrUnavailable.
//   - A statement that nobody waits for any more is ended on the server too (statement_timeout, lock_timeout).
//   - Every statement is one round trip and leaves nothing behind in its session, so a PgBouncer in transaction mode may
//     stand in between.
//
// Loader shares reads among concurrent callers; it is what the write path asks for the value of a cold key.
package store
