package world

import (
	"context"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// plainBatch is the number of keys in one MSET or MGET.
const plainBatch = 1000

// WarmPlain sets counters 0 to n - 1 to 0 as plain Redis strings, for systems that store a counter as a bare number. Each Redis key
// is prefix followed by the counter's name.
func (s *Stage) WarmPlain(ctx context.Context, prefix string, n int) error {
	for from := 0; from < n; from += plainBatch {
		pairs := make([]any, 0, 2*plainBatch)
		for i := from; i < min(from+plainBatch, n); i++ {
			pairs = append(pairs, prefix+Key(i), 0)
		}
		if err := s.Redis.MSet(ctx, pairs...).Err(); err != nil {
			return fmt.Errorf("set the plain strings: %w", err)
		}
	}
	return nil
}

// SumPlain adds up the plain strings of counters 0 to n - 1, stored without a prefix. A missing key counts as 0.
func (s *Stage) SumPlain(ctx context.Context, n int) (int64, error) {
	var sum int64
	for from := 0; from < n; from += plainBatch {
		var keys []string
		for i := from; i < min(from+plainBatch, n); i++ {
			keys = append(keys, Key(i))
		}
		values, err := s.Redis.MGet(ctx, keys...).Result()
		if err != nil {
			return 0, fmt.Errorf("read the plain strings: %w", err)
		}
		for _, value := range values {
			text, _ := value.(string) // nil for a missing key
			number, err := strconv.ParseInt("0"+text, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("add up the plain strings: %w", err)
			}
			sum += number
		}
	}
	return sum, nil
}

// DataBytes returns used_memory less the buffers of clients and the append-only file. Unlike used_memory_dataset it includes the
// overhead of keys.
func (s *Stage) DataBytes(ctx context.Context) (float64, error) {
	info, err := cache.ReadInfo(ctx, s.Redis, "memory")
	return float64(info.Used - info.Buffers), err
}
