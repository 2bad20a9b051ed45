//go:build million

package e2e_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/proof/world"
)

// Lists a million counters page by page: first while nothing is written, then under load.
func TestListOfAMillionCounters(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	s := start(t)
	require.NoError(t, s.Reset(t.Context(), million))
	c := s.client()
	defer c.close()
	memory := func() (bytes, keys int64) {
		info, err := cache.ReadInfo(t.Context(), s.Redis, "memory")
		require.NoError(t, err)
		keys, err = s.Redis.DBSize(t.Context()).Result()
		require.NoError(t, err)
		return info.Used - info.Buffers, keys
	}
	// Asynq adds a few keys for its servers at any time.
	const ofAsynq = 100
	bytes, keys := memory()
	began := time.Now()
	require.Len(t, c.all(t, "counter:", 1000), million)
	took := time.Since(began)
	bytesAfter, keysAfter := memory()
	t.Logf("a million cold counters: %v; redis had %d keys and %d bytes before, %d and %d after", took, keys, bytes, keysAfter, bytesAfter)
	require.Less(t, keysAfter, keys+ofAsynq)
	require.Less(t, bytesAfter, bytes+16<<20)

	stop, done := make(chan struct{}), make(chan int64, 1)
	go func() {
		written := int64(0)
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- written
				return
			default:
			}
			for _, key := range []string{world.Key(i * 7919 % million), fmt.Sprintf("counter:%012dx", i*104_729%million)} {
				if got, err := c.increment(key); err != nil || got.status >= 300 {
					t.Errorf("increment %s: %+v %v", key, got, err)
				}
				written++
			}
			runtime.Gosched()
		}
	}()
	began = time.Now()
	values := c.all(t, "counter:", 1000)
	took = time.Since(began)
	close(stop)
	written := <-done
	for i := range million {
		if _, found := values[world.Key(i)]; !found {
			t.Fatalf("%s is not listed", world.Key(i))
		}
	}
	t.Logf("the same during %d writes: %v, %d counters listed", written, took, len(values))
	require.Greater(t, len(values), million, "new counters are listed too")
}
