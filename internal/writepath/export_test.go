package writepath

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Looked is how many operations wait for Postgres that have been looked at.
func Looked(s *Service) int {
	s.waiters.mu.Lock()
	defer s.waiters.mu.Unlock()
	n := 0
	for _, targets := range s.waiters.shards {
		for t := range targets {
			if t.looked {
				n++
			}
		}
	}
	return n
}

// Look looks at all that waits, as after a message or at a poll.
func Look(ctx context.Context, s *Service) {
	for shard := range counter.Shard(s.cache.Shards()) {
		s.waiters.look(ctx, shard, true)
	}
}

// Counted is what a limit has counted.
func Counted(l *Limit) int64 { return l.dirty.Load() }
