// Package store reads and writes Postgres: it upserts batches of counter states, reads rows, purges tombstones, stores the audit log
// and applies the migrations.
//
//	s, err := store.Open(url, store.Options{})        // does not connect: Postgres may be down
//	ahead, err := s.Upsert(ctx, rows)                 // one statement for the batch; a row never goes back
//	ahead, locked, err := s.UpsertUnlocked(ctx, rows) // the same, but skips rows that other transactions lock
//	rows, err := s.Read(ctx, keys)                    // one query
//	switch store.Classify(err) { ... }                // the cause of the error, and whether a retry can help
//
// Guarantees:
//
//   - No call blocks for longer than its ctx, or than Options.StatementTimeout plus two seconds, even if the server is
//     frozen or its packets are lost: every read and write on the network has a deadline (deadline.go).
//   - A few consecutive outage errors open a circuit breaker. Until a probe succeeds, every call fails at once with
//     ErrUnavailable.
//   - The server ends abandoned statements too (statement_timeout, lock_timeout).
//   - Every statement is one round trip and leaves no state in its session, so it works through a PgBouncer in transaction mode.
//
// Loader shares reads among concurrent callers. The write path uses it to read cold keys.
package store
