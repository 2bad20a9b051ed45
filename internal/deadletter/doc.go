// Package deadletter is what operators do about dead letters: counters whose row Postgres refused until the attempts were
// used up. Such a key stays dirty and goes on taking writes, but no drain looks at it; its note is in the dead hash of its
// shard, and its last retry in Asynq's archive, which is cut to about 10,000 tasks, so it is the hash that counts.
//
//   - Box.Each and Box.Page list them, Box.Get and Box.Show look at one: what Redis has, and what Postgres has.
//   - Box.Redrive and Box.RedriveAll make them due again, after the cause has been mended. Box.Wait says what became of them.
//   - Box.Discard gives up what Redis has of one and returns the counter to what Postgres has.
//
// Everything may be interrupted at any point, and run again: the key is dirty until Postgres has a state of it.
package deadletter
