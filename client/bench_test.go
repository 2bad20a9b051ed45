package client_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
)

// keyNames are keys that are made before a benchmark.
func keyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "page:" + strconv.Itoa(i)
	}
	return names
}

// BenchmarkBatcher counts on 1 and on 10,000 keys, until the server has acknowledged all. Compare it with BenchmarkClientIncrement.
func BenchmarkBatcher(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			c := setup(b, localapi.Options{}, client.Options{})
			batcher := openBatcher(b, c, client.BatcherOptions{})
			keys := keyNames(n)
			var next atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := int(next.Add(1)) * 7919; pb.Next(); i++ {
					if err := batcher.Add(keys[i%n], 1); err != nil {
						b.Fatal(err)
					}
				}
			})
			require.NoError(b, batcher.Close(context.Background()))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "increments/s")
		})
	}
}

// BenchmarkClientIncrement sends each increment as a request of its own, from 64 goroutines for each core.
func BenchmarkClientIncrement(b *testing.B) {
	for name, options := range map[string][]client.Option{"idempotent": nil, "once": {client.Once()}} {
		b.Run(name, func(b *testing.B) {
			c := setup(b, localapi.Options{}, client.Options{})
			keys := keyNames(10_000)
			var next atomic.Int64
			b.SetParallelism(64)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := int(next.Add(1)) * 7919; pb.Next(); i++ {
					if _, err := c.Increment(context.Background(), keys[i%len(keys)], 1, options...); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "increments/s")
		})
	}
}
