// Package browser tests the dashboard in a headless Chromium, as an operator sees it, with real processes and servers. It contains only
// tests.
package browser
