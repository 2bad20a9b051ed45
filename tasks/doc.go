// Package tasks is the contract between the api, the scheduler and the workers: what tasks there are, what their
// payloads hold, which IDs make duplicates collapse, and in which queues and groups they travel.
//
// A task is a hint that something is to be done, never the only record of it: the epochs in Redis are that. So each
// of these may be lost, delayed, doubled or run late without harm.
//
//	type    TaskID                    sent by               what the worker does
//	flush   flush:<key>               api, worker           in group <shard>; aggregated into one drain of the shard
//	drain   drain:<shard>[:more]      api, worker           flushes the epochs of the shard
//	drain   drain:<shard>:now         api, command          the same, at once, for who waits for it
//	drain   drain:<shard>:due[:more]  worker                the same, when keys are due whose rows were locked
//	drain   drain:<shard>:<0 or 1>    worker, for a sweep   the same, for keys whose task was lost
//	retry   retry:<key>               worker                tries a row that Postgres refused, then makes it a dead letter
//	sweep   sweep:<bucket>            scheduler             looks for epochs that were not flushed for too long
//	purge   purge:<bucket>            scheduler             removes old tombstones from Postgres
//	evict   evict:<bucket>            scheduler             removes entries from Redis that are clean and idle
//
// The <key> of an ID has ~ and two hexadecimal digits for each byte that is none of A-Z, a-z, 0-9, ":", ".", "_" and "-", so that
// it is one safe part of an URL's path: the flush of page/home is flush:page~2Fhome.
//
// A TaskID that is still queued or running makes a second enqueue fail with asynq.ErrTaskIDConflict, which Send takes
// for success.
package tasks
