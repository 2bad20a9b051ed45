package world

import (
	"context"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// plainBatch is how many keys are written or read at once.
const plainBatch = 1000

// WarmPlain makes the counters 0 to n - 1 plain strings in Redis, each 0, for systems that store only a number. A key is the prefix
// and the counter's name.
func (s *Stage) WarmPlain(ctx context.Context, prefix string, n int) error {
	for from := 0; from < n; from += plainBatch {
		pairs := make([]any, 0, 2*plainBatch)
		for i := from; i < min(from+plainBatch, n); i++ {
			pairs = append(pairs, prefix+Key(i), 0)
		}
		if err := s.Redis.MSet(ctx, pairs...).Err(); err != nil {
			return fmt.Errorf("warm: %w", err)
		}
	}
	return nil
}

// SumPlain adds up the plain strings of the counters 0 to n - 1.
func (s *Stage) SumPlain(ctx context.Context, n int) (int64, error) {
	var sum int64
	for from := 0; from < n; from += plainBatch {
		var keys []string
		for i := from; i < min(from+plainBatch, n); i++ {
			keys = append(keys, Key(i))
		}
		values, err := s.Redis.MGet(ctx, keys...).Result()
		if err != nil {
			return 0, fmt.Errorf("add up: %w", err)
		}
		for _, value := range values {
			text, _ := value.(string) // nil: it was never written
			number, err := strconv.ParseInt("0"+text, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("add up: %w", err)
			}
			sum += number
		}
	}
	return sum, nil
}

// DatasetBytes is the memory that Redis uses for its data: used_memory without connections and buffers of the append-only file.
func (s *Stage) DatasetBytes(ctx context.Context) (float64, error) {
	info, err := cache.ReadInfo(ctx, s.Redis, "memory")
	return float64(info.Used - info.Buffers), err
}
