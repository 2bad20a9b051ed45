// Package convert upgrades a Redis that the previous version wrote (layout 2, dirty keys marked one by one) to layout 3, which
// keeps dirty keys by epochs. Every counter, dead letter, retry and idempotency record stays, and the keys move from the old
// number of shards to the new one.
//
//   - Run converts. `afterwrite migrate` calls it, and so does a worker that starts. Await waits for one that does.
//   - A conversion may die at any point: the next Run, of whatever process, goes on. Two of them exclude each other by a
//     lease, which the one that works renews.
//   - Neither version runs meanwhile: the layout in aw:meta is "2>3", which the old version refuses and the new one waits for.
//
// # How it stays safe
//
// It goes over the keys in pages of 100. A page is read (move.go), translated in Go (entry.go), and put in its place by
// convert.lua, which first compares what it replaces with what was read. Where the old and the new shard are on one server, a key
// moves in one atomic script. On a cluster they may not be: then the new key is written before the old one is removed, and an
// entry that is in its place already is left as it is. A converter that lost its lease, and goes on after the end, finds that
// the shards no longer carry the conversion's token, and changes nothing.
//
// # What a dirty entry becomes
//
// Its run of unsynced writes keeps its number, base and ended runs: they are how rows tell which writes they have
// (docs/decisions/0008-lineages.md). A conversion counts as a restart of Redis: the first epoch of a new shard is newer than all
// of these numbers. So the next write begins another run, and a flush that a worker of the old version began before it was killed
// is recognized when it reaches Postgres late.
package convert
