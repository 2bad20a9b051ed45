// Package tasks is the contract between the api, the scheduler and the workers: the tasks, their payloads, the IDs that merge duplicates,
// and their queues and groups.
//
// A task is a hint that there is work to do. The record of the work is in the epochs in Redis, so any task may be lost, delayed or run
// twice without harm.
//
//	type    TaskID                    sent by               what the worker does
//	flush   flush:<key>               api, worker           in group <shard>; aggregated into one drain of the shard
//	drain   drain:<shard>[:more]      api, worker           flushes the epochs of the shard
//	drain   drain:<shard>:now         api, command          the same, at once, for a caller that waits
//	drain   drain:<shard>:due[:more]  worker                the same, when deferred keys are due
//	drain   drain:<shard>:<0 or 1>    worker, for a sweep   the same, for a shard whose tasks were lost
//	retry   retry:<key>               worker                retries a row that Postgres refused, and buries it in the end
//	sweep   sweep:<bucket>            scheduler             finds shards that have not been flushed for too long
//	purge   purge:<bucket>            scheduler             removes old tombstones from Postgres
//	evict   evict:<bucket>            scheduler             removes clean, idle entries from Redis
//
// In the <key> of an ID, each byte other than A-Z, a-z, 0-9, ":", ".", "_" and "-" is written as ~ and two hexadecimal digits, so that
// the ID is one safe segment of a URL: the flush of page/home is flush:page~2Fhome.
//
// While a task with an ID is queued or running, a second enqueue fails with asynq.ErrTaskIDConflict, which Send treats as success. A task
// that is running may be past its work: TrySend reports the conflict to senders for whom that matters.
package tasks
