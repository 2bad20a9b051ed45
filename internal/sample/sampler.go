package sample

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/pulse"
)

// infoEvery is how often Redis is asked about itself, in samples: its answer is 5 kB, and changes slowly.
const infoEvery = 5

// Sampler takes samples, one at a time.
type Sampler struct {
	cache *cache.Cache
	redis redis.UniversalClient
	rates *rates
	info  Redis
	taken int
}

// NewSampler returns a Sampler. The client stays the caller's to close.
func NewSampler(c *cache.Cache, client redis.UniversalClient) *Sampler {
	return &Sampler{cache: c, redis: client, rates: newRates()}
}

// Take returns what is now. Rates are of the time between beats that this Sampler has seen, so they are 0 at the first
// call. It makes three to six round trips, within ctx.
func (s *Sampler) Take(ctx context.Context) (Snapshot, error) {
	now, err := s.cache.Now(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{Sample: Sample{At: now}}
	if snapshot.Shards, err = s.cache.BacklogByShard(ctx, now); err != nil {
		return Snapshot{}, err
	}
	for _, shard := range snapshot.Shards {
		snapshot.Dirty += shard.Dirty
		snapshot.Dead += shard.Dead
		snapshot.Retrying += shard.Retrying
		snapshot.Oldest = max(snapshot.Oldest, shard.Oldest.Milliseconds())
	}
	if snapshot.Processes, err = pulse.Read(ctx, s.redis, now); err != nil {
		return Snapshot{}, err
	}
	err = pulse.Prune(ctx, s.redis, snapshot.Processes)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused {
		return Snapshot{}, err
	}
	snapshot.Refusal = cache.Refusal(err)
	s.rates.add(&snapshot, snapshot.Processes)
	if s.taken%infoEvery == 0 {
		text, err := s.redis.Info(ctx).Result()
		_, refused := errors.AsType[redis.Error](err)
		switch {
		case refused: // an ACL that does not let us ask hides no counter
			s.info = Redis{}
		case err != nil:
			return Snapshot{}, fmt.Errorf("ask redis about itself: %w", err)
		default:
			s.info = parseInfo(text)
		}
	}
	s.taken++
	snapshot.Redis = s.info
	return snapshot, nil
}

// parseInfo reads the answer to INFO (https://redis.io/docs/latest/commands/info/).
func parseInfo(text string) Redis {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(fields[name], 10, 64) // 0 where it is not said
		return n
	}
	failed := func(name string) bool { return fields[name] != "" && fields[name] != "ok" }
	return Redis{
		Version: fields["redis_version"], Role: fields["role"], Replicas: number("connected_slaves"),
		Uptime: time.Duration(number("uptime_in_seconds")) * time.Second,
		Used:   number("used_memory"), Limit: number("maxmemory"), Policy: fields["maxmemory_policy"],
		AOF: fields["aof_enabled"] == "1", Rewriting: fields["aof_rewrite_in_progress"] == "1",
		AOFFailing: fields["aof_enabled"] == "1" && (failed("aof_last_write_status") || failed("aof_last_bgrewrite_status")),
		Ops:        number("instantaneous_ops_per_sec"), Known: true,
	}
}
