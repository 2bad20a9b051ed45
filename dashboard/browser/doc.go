// Package browser tests the dashboard as an operator sees it: real processes, a real Postgres that goes away, and a
// Chromium without a window. It holds nothing but tests.
package browser
