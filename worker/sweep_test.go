package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

// No worker ran for a while: the sweeps of that time are queued, and each would send a drain of every shard with old keys.
func TestLateSweepsSendNothing(t *testing.T) {
	t.Parallel()
	// Long intervals, so that only sweeps would drain.
	b := setup(t, map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "1h"})
	b.do(t, increment("a", 1))
	b.age(t, "a", time.Minute)
	const late = 30
	for i := range late {
		b.send(t, tasks.Sweep(time.Now().Add(-time.Duration(3+i)*time.Hour), time.Hour))
	}
	b.run(t)

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
		require.NoError(t, err)
		return info.Completed == late, fmt.Sprintf("%d of %d sweeps have run", info.Completed, late)
	})
	_, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.ErrorContains(t, err, "does not exist", "nothing was sent")

	b.send(t, tasks.Sweep(time.Now(), time.Hour))
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}
