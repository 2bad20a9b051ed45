package worker_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

var refusals = regexp.MustCompile(`errorstat_OOM:count=(\d+)`)

// Asynq retries a failed dequeue at once, so pollClient must pause.
func TestFullRedisIsPolledWithPauses(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL(), localtest.PostgresURL(t, migrate), nil)
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "1").Err())
	began := time.Now()
	b.run(t)

	const some, perSecondMax = 50, 100
	refused := 0
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		stats, err := b.redis.Info(t.Context(), "errorstats").Result()
		require.NoError(t, err)
		if found := refusals.FindStringSubmatch(stats); found != nil {
			refused, err = strconv.Atoi(found[1])
			require.NoError(t, err)
		}
		return refused >= some, fmt.Sprintf("refused %d times", refused)
	})
	require.Less(t, float64(refused)/time.Since(began).Seconds(), float64(perSecondMax))
}

var commands = regexp.MustCompile(`total_commands_processed:(\d+)`)

// processed returns how many commands Redis has processed, including commands in scripts.
func (b *testBundle) processed(t *testing.T) int {
	t.Helper()
	stats, err := b.redis.Info(t.Context(), "stats").Result()
	require.NoError(t, err)
	n, err := strconv.Atoi(commands.FindStringSubmatch(stats)[1])
	require.NoError(t, err)
	return n
}

func TestIdleWorkerPollsRarely(t *testing.T) {
	t.Parallel()
	// Without sweeps, which would add one task in 5 s.
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL(), localtest.PostgresURL(t, migrate),
		map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "1h"})
	b.run(t)

	const perSecondMax = 40 // 11 for tasks, 6 for delayed ones, 3 for groups, 1 for its heartbeat; 230 without a pollClient
	began, before := time.Now(), b.processed(t)
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		took := time.Since(began)
		if took < 2*time.Second {
			return false, "too short to tell"
		}
		now := b.processed(t)
		rate := float64(now-before) / took.Seconds()
		began, before = time.Now(), now
		return rate < perSecondMax, fmt.Sprintf("%.0f commands a second", rate)
	})

	b.do(t, increment("a", 1))
	b.send(t, tasks.DrainNow(b.cache.Shard("a")))
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}
