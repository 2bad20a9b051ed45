package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// infoEvery is the number of samples between two reads of INFO, whose answer has 5 kB and changes slowly. After a failed sample it is
	// read at once.
	infoEvery = 5

	// clusterStepTimeout bounds each step on a cluster. If a node hangs, sampleTimeout leaves enough time for the others.
	clusterStepTimeout = 350 * time.Millisecond

	// clockTries is the number of attempts to read the time of a cluster.
	clockTries = 3
)

// sampler takes samples, one at a time.
type sampler struct {
	cache   *cache.Cache
	redis   redis.UniversalClient
	cluster *redis.ClusterClient // the same client; nil without a cluster
	rates   *rates
	info    cache.Info
	taken   int
	anew    bool // the last sample failed or was incomplete, so that there may be another master
}

func newSampler(c *cache.Cache, client redis.UniversalClient) *sampler {
	cluster, _ := client.(*redis.ClusterClient)
	return &sampler{cache: c, redis: client, cluster: cluster, rates: newRates()}
}

// take takes one sample, in four to seven round trips. Rates need the heartbeats of the call before, so the first call returns rates of 0.
// On a cluster, one answering node is enough.
func (s *sampler) take(ctx context.Context) (Snapshot, error) {
	snapshot, err := s.sample(ctx)
	s.anew = err != nil || snapshot.Away > 0 || snapshot.Unread || snapshot.Refusal != ""
	return snapshot, err
}

func (s *sampler) sample(ctx context.Context) (Snapshot, error) {
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
	if s.taken%infoEvery == 0 || !s.info.Known || s.anew { // on a cluster, the next attempt may begin at a node that answers
		if err := s.step(ctx, s.readInfo); err != nil {
			return Snapshot{}, err
		}
	}
	s.taken++
	snapshot.Redis = s.info
	return snapshot, nil
}

// step runs a part of take, on a cluster with a timeout.
func (s *sampler) step(ctx context.Context, do func(context.Context) error) error {
	if s.cluster == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterStepTimeout)
	defer cancel()
	return do(ctx)
}

// now returns the time by Redis's clock, in ms. On a cluster, each attempt goes to another node.
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

// pausedQueues returns the paused queues, sorted by name and without the prefix, in one round trip. It sends one command for each, because
// queues have different slots on a cluster.
func pausedQueues(ctx context.Context, client redis.UniversalClient, prefix string) ([]string, error) {
	queues := tasks.QueuesIn(client, "").Names()
	marks := make([]*redis.IntCmd, len(queues))
	pipe := client.Pipeline()
	for i, queue := range queues {
		marks[i] = pipe.Exists(ctx, tasks.PausedKey(prefix+queue))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read which queues are paused: %w", err)
	}
	var found []string
	for i, queue := range queues {
		if marks[i].Val() > 0 {
			found = append(found, queue)
		}
	}
	return found, nil
}

// readInfo reads INFO. If an ACL forbids it, or no master of a cluster answers, the facts are unknown, but that is not an error.
func (s *sampler) readInfo(ctx context.Context) error {
	info, err := cache.ReadInfo(ctx, s.redis)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused && s.cluster == nil {
		return err
	}
	s.info = info
	return nil
}
