// Package convert upgrades a Redis of the previous version (layout 2, which marks each dirty key) to layout 3, which has epochs. It
// keeps every counter, dead letter, retry and idempotency record, and moves the keys from the old number of shards to the new one.
//
//   - Run converts. `afterwrite migrate` and starting workers call it. Await waits for another process to convert.
//   - A conversion may die at any point: the next Run, in any process, continues it. A lease ensures that only one process converts.
//   - Neither version runs meanwhile: the layout in aw:meta is "2>3", which the old version refuses and the new version waits for.
//
// # Safety
//
// The keys are converted in pages of 100. A page is read (move.go), translated in Go (entry.go), and written by convert.lua, which
// skips keys that have changed since they were read. If the old and the new shard are on one server, a key moves in one atomic script.
// On a cluster, the new key is written before the old one is removed, and a new key that already exists is kept. A converter that
// lost its lease and continues after the end changes nothing, because the shards no longer have the conversion's token.
//
// # Dirty entries
//
// A dirty entry keeps its lineage, its base and its ended lineages, by which rows show which writes they have
// (docs/decisions/0008-lineages.md). A conversion counts as a restart of Redis: the first epoch of a new shard is newer than all
// lineages. So the next write begins another lineage, and a late flush of a killed worker of the old version is recognized.
package convert
