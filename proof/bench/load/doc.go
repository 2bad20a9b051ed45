// Package load makes the load of the benchmark, and starts the peers that afterwrite is measured beside.
//
//   - WRK is a closed loop of wrk: how much a server can take.
//   - Open is an open loop at a fixed rate: how long a write takes from when it was due.
//   - RedisBenchmark, PGBenchUpsert and PGBenchInsert measure Redis and Postgres alone with their own tools.
//   - StartPeer runs one of the peers in proof/bench/peer; Webdis runs webdis, which puts HTTP in front of Redis.
//
// The tools come from packages: wrk, webdis, redis-tools and postgresql. An error names a missing one.
package load
