package writepath

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Checked returns the number of waiting operations that have been checked.
func Checked(s *Service) int {
	s.waiters.mu.Lock()
	defer s.waiters.mu.Unlock()
	n := 0
	for _, targets := range s.waiters.shards {
		for t := range targets {
			if t.checked {
				n++
			}
		}
	}
	return n
}

// Check checks all waiting operations, as after a message or at a poll.
func Check(ctx context.Context, s *Service) {
	for shard := range counter.Shard(s.cache.Shards()) {
		s.waiters.check(ctx, shard, true)
	}
}

// Counted returns the last count of a limit.
func Counted(l *Limit) int64 { return l.dirty.Load() }
