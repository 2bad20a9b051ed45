// Package doctor checks whether Redis and Postgres are fit for afterwrite: what would lose counters is refused, what could
// is warned of, and each finding says what to do about it.
//
// `afterwrite doctor` shows all findings; every long-running process runs the same checks at its start (Startup), where
// the state of Redis decides whether it may run. The state of Postgres does not: a Postgres that is away is what the
// program is built to bear.
package doctor
