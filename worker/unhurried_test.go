package worker_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

var refusals = regexp.MustCompile(`errorstat_OOM:count=(\d+)`)

// Asynq tries again at once when it cannot dequeue.
func TestAFullRedisIsNotAskedForTasksWithoutAPause(t *testing.T) {
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
