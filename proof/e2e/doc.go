// Package e2e tests the built binary: its processes as they run in production, on a real Redis and a real Postgres, under
// load and under kill -9. It has tests only.
package e2e
