// Package load makes the load of the benchmark, and starts the peers that afterwrite is measured beside.
//
//   - WRK is a closed loop of wrk: how much a server can take.
//   - Open is an open loop at a fixed rate: how long a write takes, from when it was due.
//   - RedisBenchmark and PGBench are what Redis and Postgres do alone, asked by their own tools.
//   - StartPeer runs one of the peers in proof/bench/peer, Webdis a Redis behind HTTP that others wrote.
//
// The tools come from packages: wrk, webdis, redis-tools and postgresql. Errors name the one that is missing.
package load
