package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// infoEvery is how often INFO is read, in samples: its answer is 5 kB and changes slowly.
	infoEvery = 5

	// clusterPatience bounds each step on a cluster: if a node hangs, there is time left for the others in the 2 s of a sample.
	clusterPatience = 350 * time.Millisecond

	// clockTries is how many nodes of a cluster are asked for the time, one after the other.
	clockTries = 3
)

// sampler takes samples, one at a time.
type sampler struct {
	cache   *cache.Cache
	redis   redis.UniversalClient
	cluster *redis.ClusterClient // the same client; nil if it is no cluster
	rates   *rates
	info    cache.Info
	taken   int
}

func newSampler(c *cache.Cache, client redis.UniversalClient) *sampler {
	cluster, _ := client.(*redis.ClusterClient)
	return &sampler{cache: c, redis: client, cluster: cluster, rates: newRates()}
}

// take takes one sample, in four to seven round trips. Rates are between heartbeats that this sampler has seen, so they are 0 at the
// first call. On a cluster, one node that answers is enough.
func (s *sampler) take(ctx context.Context) (Snapshot, error) {
	now, err := s.now(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{Sample: Sample{At: now}, Prefix: s.cache.Prefix()}
	err = s.step(ctx, func(ctx context.Context) error {
		shards, err := s.cache.Backlogs(ctx)
		sum := shards.Sum()
		snapshot.Shards, snapshot.Away = shards, int64(sum.Uncounted)
		snapshot.Dirty, snapshot.Dead, snapshot.Retrying = sum.Dirty, sum.Dead, sum.Retrying
		snapshot.Oldest = sum.Oldest.Milliseconds()
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	if err := s.step(ctx, func(ctx context.Context) error { return s.readProcesses(ctx, &snapshot) }); err != nil {
		return Snapshot{}, err
	}
	err = s.step(ctx, func(ctx context.Context) error {
		snapshot.Paused, err = pausedQueues(ctx, s.redis, snapshot.Prefix)
		return err
	})
	if err != nil && s.cluster == nil {
		return Snapshot{}, err
	}
	if s.taken%infoEvery == 0 {
		if err := s.step(ctx, s.readInfo); err != nil {
			return Snapshot{}, err
		}
	}
	s.taken++
	snapshot.Redis = s.info
	return snapshot, nil
}

// step runs a part of take. On a cluster it bounds the time.
func (s *sampler) step(ctx context.Context, do func(context.Context) error) error {
	if s.cluster == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	return do(ctx)
}

// now returns the time by Redis's clock, in ms. On a cluster the client asks another node at each try.
func (s *sampler) now(ctx context.Context) (now int64, err error) {
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

// readProcesses reads the heartbeats, and computes the rates.
func (s *sampler) readProcesses(ctx context.Context, snapshot *Snapshot) (err error) {
	snapshot.Processes, err = ReadHeartbeats(ctx, s.redis, snapshot.Prefix, snapshot.At)
	if err != nil && s.cluster != nil {
		snapshot.Unread = true
		snapshot.Writes, snapshot.Rows, snapshot.Rejected, snapshot.LagP50, snapshot.LagP99 = -1, -1, -1, -1, -1
		return nil
	}
	if err != nil {
		return err
	}
	s.rates.add(snapshot, snapshot.Processes)
	err = prune(ctx, s.redis, snapshot.Prefix, snapshot.Processes)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused && s.cluster == nil {
		return err
	}
	snapshot.Refusal = cache.Refusal(err)
	return nil
}

// pausedQueues returns which of our queues are paused, sorted by name, without prefix, in one round trip. It needs a command for
// each, because on a cluster each queue has a slot of its own.
func pausedQueues(ctx context.Context, client redis.UniversalClient, prefix string) ([]string, error) {
	queues := slices.Sorted(maps.Keys(tasks.Queues("")))
	marks := make([]*redis.IntCmd, len(queues))
	pipe := client.Pipeline()
	for i, queue := range queues {
		marks[i] = pipe.Exists(ctx, tasks.PausedKey(prefix+queue))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("ask which queues are paused: %w", err)
	}
	var found []string
	for i, queue := range queues {
		if marks[i].Val() > 0 {
			found = append(found, queue)
		}
	}
	return found, nil
}
