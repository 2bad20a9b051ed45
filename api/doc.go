// Package api is the HTTP side of afterwrite: it turns requests into counter operations, has them carried out, and turns
// what became of them into JSON. It holds no state of its own, and Echo's types stay in here.
//
//	handler := api.New(service, api.Options{Logger: log, Metrics: registry, Health: health.Handlers()})
//
// # A request's way
//
//   - edge: gives the request an ID, catches panics, and makes the router see the path exactly as it was sent.
//   - path: the key is percent-decoded exactly once and checked (counter.ParseKey).
//   - body: media type, size, then strict JSON, read as a stream of tokens; batch is the same for many operations.
//   - Counters: carries the operations out. In the program that is package writepath.
//   - prefer: what the client wants to wait for; idempotency: which requests are one and the same; flush: what is left to flush.
//   - admin, dead: what operators may do about dead letters (package operate), for those who have the token.
//   - encode: the answer, appended to a pooled buffer; problem: every error, by one table from code to status.
//
// Errors are values of counter.Error all the way. Its Detail is for the client; its Err is for the log only.
//
// The API itself is described by openapi.yaml, which is embedded, served at /v1/openapi.yaml, and tested against this
// package: a route, a status or a field that the document does not have fails the tests.
package api
