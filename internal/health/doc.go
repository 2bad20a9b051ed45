// Package health answers one question: does Postgres keep up with what is written?
//
//   - A Reporter sends a heartbeat of its process to Redis once a second: that it runs, and what it has counted.
//   - A Monitor takes one Snapshot a second from the heartbeats, the shards and what Redis says of itself. It keeps the last
//     15 minutes of samples, and records them in Redis, so that other processes and later ones have them too.
//   - Snapshot.Judge turns a Snapshot into findings, by the table in rules.go. The dashboard, `afterwrite status` and
//     `afterwrite doctor` show the same findings.
//
// All times are by Redis's clock. On a cluster, a Snapshot has what the masters that answer have.
package health
