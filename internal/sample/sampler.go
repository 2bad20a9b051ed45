package sample

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/pulse"
)

const (
	// infoEvery is how often Redis is asked about itself, in samples: its answer is 5 kB, and changes slowly.
	infoEvery = 5

	// patience bounds each step on a cluster: a node that hangs leaves time to ask the others, in the 2 s that a sample has.
	patience = 350 * time.Millisecond

	// clockTries is how many nodes of a cluster are asked for the time, one after the other.
	clockTries = 3
)

// Sampler takes samples, one at a time.
type Sampler struct {
	cache   *cache.Cache
	redis   redis.UniversalClient
	cluster *redis.ClusterClient // the same; nil: it is none
	rates   *rates
	info    Redis
	taken   int
}

// NewSampler returns a Sampler. The client stays the caller's to close.
func NewSampler(c *cache.Cache, client redis.UniversalClient) *Sampler {
	cluster, _ := client.(*redis.ClusterClient)
	return &Sampler{cache: c, redis: client, cluster: cluster, rates: newRates()}
}

// Take returns what is now. Rates are of the time between beats that this Sampler has seen, so they are 0 at the first
// call. It makes four to seven round trips, within ctx. A cluster of which one node answers is enough.
func (s *Sampler) Take(ctx context.Context) (Snapshot, error) {
	now, err := s.now(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{Sample: Sample{At: now}}
	err = s.step(ctx, func(ctx context.Context) error {
		snapshot.Shards, err = s.cache.BacklogByShard(ctx)
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	for _, shard := range snapshot.Shards {
		if shard.Unknown {
			snapshot.Away++
		}
		snapshot.Dirty += shard.Dirty
		snapshot.Dead += shard.Dead
		snapshot.Retrying += shard.Retrying
		snapshot.Oldest = max(snapshot.Oldest, shard.Oldest.Milliseconds())
	}
	if err := s.step(ctx, func(ctx context.Context) error { return s.hear(ctx, &snapshot) }); err != nil {
		return Snapshot{}, err
	}
	err = s.step(ctx, func(ctx context.Context) error {
		snapshot.Paused, err = paused(ctx, s.redis)
		return err
	})
	if err != nil && s.cluster == nil {
		return Snapshot{}, err
	}
	if s.taken%infoEvery == 0 {
		if err := s.step(ctx, s.inform); err != nil {
			return Snapshot{}, err
		}
	}
	s.taken++
	snapshot.Redis = s.info
	return snapshot, nil
}

// step does a part of what Take does. On a cluster it does not wait for long.
func (s *Sampler) step(ctx context.Context, do func(context.Context) error) error {
	if s.cluster == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return do(ctx)
}

// now returns the time by Redis's clock, in ms. A cluster's nodes are asked in turn, by the client.
func (s *Sampler) now(ctx context.Context) (now int64, err error) {
	tries := 1
	if s.cluster != nil {
		tries = clockTries
	}
	for range tries {
		err = s.step(ctx, func(ctx context.Context) error {
			now, err = s.cache.Now(ctx)
			return err
		})
		if err == nil {
			break
		}
	}
	return now, err
}

// hear reads what the processes say, and what follows from it.
func (s *Sampler) hear(ctx context.Context, snapshot *Snapshot) (err error) {
	snapshot.Processes, err = pulse.Read(ctx, s.redis, snapshot.At)
	if err != nil && s.cluster != nil {
		snapshot.Unread = true
		snapshot.Writes, snapshot.Rows, snapshot.Rejected, snapshot.LagP50, snapshot.LagP99 = -1, -1, -1, -1, -1
		return nil
	}
	if err != nil {
		return err
	}
	s.rates.add(snapshot, snapshot.Processes)
	err = pulse.Prune(ctx, s.redis, snapshot.Processes)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused && s.cluster == nil {
		return err
	}
	snapshot.Refusal = cache.Refusal(err)
	return nil
}
