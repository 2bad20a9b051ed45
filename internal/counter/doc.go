// Package counter is the domain: keys, operations, counters and their errors. It imports no other package of this module, and is
// independent of HTTP, Redis and Postgres.
//
// A client sends an Operation on a Key. Each accepted write adds one to the key's version, so the states of a counter have an order. The
// flush path relies on that: a Row in Postgres is replaced only by a Row with a higher version. A deleted counter is a tombstone and
// keeps its version.
package counter
