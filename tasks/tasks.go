package tasks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Task types.
const (
	TypeFlush = "flush"
	TypeDrain = "drain"
	TypeRetry = "retry"
	TypeSweep = "sweep"
	TypePurge = "purge"
	TypeEvict = "evict"
)

const (
	// uncounted is the MaxRetry of tasks whose errors never count as failures. It only has to be more than 0: Asynq would archive a task
	// with 0 at its first error.
	uncounted = 25

	// taskTimeout bounds one run of a flush, drain or retry. A drain that would take longer ends early and sends another.
	taskTimeout = 60 * time.Second

	// evictTimeout bounds one pass over all entries: 36,000,000 at the rate of an eviction.
	evictTimeout = 30 * time.Minute

	// purgeTimeout bounds one purge: a day of a history may have 100,000,000 counters.
	purgeTimeout = 30 * time.Minute
)

// Keys is the payload of a flush and of a retry.
type Keys struct {
	Keys []counter.Key `json:"keys"`
	// Shard is the shard of a flush. Queues chooses the queue by it.
	Shard counter.Shard `json:"shard,omitempty"`
}

// Shard is the payload of a drain.
type Shard struct {
	Shard counter.Shard `json:"shard"`
	// Swept: a sweep sent it. It is not retried, since the next sweep sends another.
	Swept bool `json:"swept,omitempty"`
	// Now: flush the open epoch at any age: a caller waits, or deferred keys are due.
	Now bool `json:"now,omitempty"`
}

// Flush is the hint that key has become dirty. Asynq aggregates the flushes of one shard.
func Flush(key counter.Key, shard counter.Shard) *asynq.Task { return flushWith(nil, key, shard) }

// flushWith is Flush with headers.
func flushWith(headers map[string]string, key counter.Key, shard counter.Shard) *asynq.Task {
	return asynq.NewTaskWithHeaders(TypeFlush, encode(Keys{Keys: []counter.Key{key}, Shard: shard}), headers,
		asynq.TaskID(FlushID(key)),
		asynq.Group(shard.String()),
		asynq.Queue(QueueFlush),
		asynq.MaxRetry(uncounted),
		asynq.Timeout(taskTimeout),
	)
}

// Aggregate merges the flushes of one group into one; it is the asynq.GroupAggregatorFunc of the worker. Asynq ignores the options of the
// members, so Aggregate sets them again. It must not panic: that would end the process.
func Aggregate(_ string, members []*asynq.Task) *asynq.Task {
	merged := Keys{Keys: make([]counter.Key, 0, len(members))}
	for _, m := range members {
		// It drops a member that cannot be read: its key, if there is one, is in its shard's open epoch.
		if keys, err := DecodeKeys(m.Payload()); err == nil {
			merged.Keys = append(merged.Keys, keys...)
		}
	}
	return asynq.NewTaskWithHeaders(TypeFlush, encode(merged), mergeTraces(members),
		asynq.MaxRetry(uncounted),
		asynq.Timeout(taskTimeout),
	)
}

// Drain is the hint that the shard has too many newly dirty keys for tasks of their own. It runs after delay.
func Drain(shard counter.Shard, delay time.Duration) *asynq.Task {
	return drain(Shard{Shard: shard}, "drain:"+shard.String(), asynq.ProcessIn(delay))
}

// DrainNow is the drain that a caller waits for. It has an ID of its own, since Drain's ID may belong to a delayed drain.
func DrainNow(shard counter.Shard) *asynq.Task {
	return drain(Shard{Shard: shard, Now: true}, "drain:"+shard.String()+":now")
}

// DrainDue is the drain of deferred keys, when they are due. It has IDs of its own, since it may be later than other drains: id is one of
// DueIDs. Asynq runs it up to a second too early.
func DrainDue(shard counter.Shard, id string, delay time.Duration) *asynq.Task {
	return drain(Shard{Shard: shard, Now: true}, id, asynq.ProcessIn(delay))
}

// DrainMore is the drain that a drain sends, to run after delay, if keys became dirty while it ran. id is one of MoreIDs.
func DrainMore(shard counter.Shard, id string, delay time.Duration) *asynq.Task {
	return drain(Shard{Shard: shard}, id, asynq.ProcessIn(delay))
}

// MoreIDs returns the TaskIDs that DrainMore may have, if it is sent by the task with the ID own. That ID is taken while the sender runs,
// so drains alternate between two IDs, and there are never more than two.
func MoreIDs(shard counter.Shard, own string) []string { return othersOf("drain:"+shard.String(), own) }

// DueIDs returns the TaskIDs that DrainDue may have, as MoreIDs does for DrainMore.
func DueIDs(shard counter.Shard, own string) []string {
	return othersOf("drain:"+shard.String()+":due", own)
}

// othersOf returns the two IDs of a kind of drain, without own.
func othersOf(id, own string) []string {
	return slices.DeleteFunc([]string{id, id + ":more"}, func(id string) bool { return id == own })
}

// SweptDrain is the drain that the sweep of the given bucket sends. It has an ID of its own, because a dead worker may hold Drain's for
// minutes. Sweeps alternate between two IDs for each shard: a dead worker that holds one of them blocks only every other sweep, and at
// most two drains wait, however many sweeps run.
func SweptDrain(shard counter.Shard, bucket int64) *asynq.Task {
	return drain(Shard{Shard: shard, Swept: true}, "drain:"+shard.String()+":"+strconv.FormatInt(bucket%2, 10))
}

func drain(payload Shard, id string, more ...asynq.Option) *asynq.Task {
	options := append([]asynq.Option{
		asynq.TaskID(id),
		asynq.Queue(QueueFlush),
		asynq.MaxRetry(uncounted),
		asynq.Timeout(taskTimeout),
	}, more...)
	return asynq.NewTask(TypeDrain, encode(payload), options...)
}

// Retry is the next attempt at a row that Postgres refused. The handler ends it with asynq.SkipRetry at the last of maxAttempts attempts.
// Asynq itself is given one more: it archives a task that has used up its retries even for an error that does not count.
func Retry(key counter.Key, maxAttempts int, delay time.Duration) *asynq.Task {
	return asynq.NewTask(TypeRetry, encode(Keys{Keys: []counter.Key{key}}),
		asynq.TaskID(RetryID(key)),
		asynq.Queue(QueueRetry),
		asynq.MaxRetry(maxAttempts),
		asynq.Timeout(taskTimeout),
		asynq.ProcessIn(delay),
	)
}

// Sweep is the periodic task of the bucket of time that contains now. All schedulers make the same ID. Retention holds it after the task
// has run, for schedulers whose clock is behind.
func Sweep(now time.Time, interval time.Duration) *asynq.Task {
	return periodic(TypeSweep, now, interval)
}

// Purge is Sweep for the removal of tombstones and of old operations. It may take longer than others.
func Purge(now time.Time, interval time.Duration) *asynq.Task {
	return periodic(TypePurge, now, interval, asynq.Timeout(purgeTimeout))
}

// Evict is Sweep for the removal of idle entries. It may take longer than others.
func Evict(now time.Time, interval time.Duration) *asynq.Task {
	return periodic(TypeEvict, now, interval, asynq.Timeout(evictTimeout))
}

func periodic(typename string, now time.Time, interval time.Duration, more ...asynq.Option) *asynq.Task {
	bucket := Bucket(now, interval)
	options := append([]asynq.Option{
		asynq.TaskID(typename + ":" + strconv.FormatInt(bucket, 10)),
		asynq.Queue(QueueSweep),
		asynq.MaxRetry(uncounted),
		asynq.Timeout(taskTimeout),
		asynq.Retention(2 * interval),
	}, more...)
	return asynq.NewTask(typename, encode(Tick{Bucket: bucket, IntervalMS: interval.Milliseconds()}), options...)
}

// Tick is the payload of a periodic task: the number of its interval, and the interval in the settings of the scheduler, which may differ
// from the worker's.
type Tick struct {
	Bucket     int64 `json:"bucket"`
	IntervalMS int64 `json:"interval_ms,omitempty"`
}

// maxTickAge is how many intervals after its own a periodic task is still worth running.
const maxTickAge = 2

// Stale reports whether at least three intervals have begun since the task's own, by Redis's clock. Then a later task exists or is due.
func (t Tick) Stale(now time.Time) bool {
	if t.IntervalMS <= 0 {
		return false // from an older scheduler, which does not send the interval
	}
	return now.UnixMilli()/t.IntervalMS-t.Bucket > maxTickAge
}

// Bucket is the number of the interval since 1970 that contains now.
func Bucket(now time.Time, interval time.Duration) int64 {
	return now.UnixMilli() / interval.Milliseconds()
}

// DecodeKeys reads the payload of a flush or retry. It checks every key.
func DecodeKeys(payload []byte) ([]counter.Key, error) {
	var p Keys
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, fmt.Errorf("decode keys: %w", err)
	}
	for _, k := range p.Keys {
		if _, err := counter.ParseKey(string(k)); err != nil {
			return nil, fmt.Errorf("decode keys: %w", err)
		}
	}
	return p.Keys, nil
}

// DecodeShard reads the payload of a drain. The shard must be less than shards.
func DecodeShard(payload []byte, shards int) (Shard, error) {
	var p Shard
	if err := json.Unmarshal(payload, &p); err != nil {
		return Shard{}, fmt.Errorf("decode shard: %w", err)
	}
	if p.Shard < 0 || int(p.Shard) >= shards {
		return Shard{}, fmt.Errorf("decode shard: %d is not one of %d shards", p.Shard, shards)
	}
	return p, nil
}

// DecodeTick reads the payload of a sweep or purge.
func DecodeTick(payload []byte) (Tick, error) {
	var p Tick
	if err := json.Unmarshal(payload, &p); err != nil {
		return Tick{}, fmt.Errorf("decode tick: %w", err)
	}
	return p, nil
}

// encode never fails: the payloads are structs of strings and integers.
func encode(payload any) []byte {
	b, err := json.Marshal(payload)
	if err != nil {
		panic(fmt.Sprintf("tasks: encode %T: %v", payload, err))
	}
	return b
}
