// Package sample turns what processes say of themselves (package pulse) and what Redis holds into one Sample a second: how
// much is written, how much reaches Postgres, and how far that is behind.
//
//   - A Sampler takes one Snapshot at a time: the Sample, and what it was made of. What it costs Redis does not depend on
//     who looks: about 4 commands of constant or logarithmic time for each shard, and some 20 more, in one second. Of a cluster
//     it shows what the masters that answer have.
//   - The History of the last 15 minutes is a list in Redis, so that it is there for whoever opens the page, and outlives
//     the dashboard's processes. One sample is kept for each second, however many dashboards take some.
//
// All times are of Redis's clock.
package sample
