// Package counter is the domain: what a key, an operation, a counter and its errors are. It imports nothing of ours and
// knows neither HTTP nor Redis nor Postgres; every other package speaks in its types.
//
// A client sends an Operation on a Key. Each accepted write adds one to the key's version, so two states of one counter
// can always be told apart and put in order: that is what the flush path relies on (a Row in Postgres is replaced only
// by a Row with a higher version). A deleted counter is a tombstone and keeps its version.
package counter
