// Package health answers one question: does Postgres keep up with the writes?
//
//   - A Reporter sends a heartbeat of its process, with the process's counts, to Redis once a second.
//   - A Monitor takes one Snapshot a second of the heartbeats, the shards and INFO. It keeps the samples of the last 15 minutes, and
//     records them in Redis for other processes and restarts.
//   - Snapshot.Judge turns a Snapshot into findings, by the table in rules.go. The dashboard, `afterwrite status` and
//     `afterwrite doctor` show the same findings.
//
// All times are by Redis's clock. On a cluster, a Snapshot covers the masters that answer.
package health
