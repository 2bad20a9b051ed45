package worker_test

import (
	"bytes"
	"context"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goroutines counts the distinct stacks of goroutines with a label; it is 0 if there are no such goroutines. A goroutine inherits its
// labels from the goroutine that started it.
func goroutines(t *testing.T, label string) int {
	t.Helper()
	var profile bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	return strings.Count(profile.String(), label)
}

func TestWorkerThatCannotStartLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const label = "a worker that cannot start"
	stop, err := b.worker.StartTasks()
	require.NoError(t, err)
	defer stop()

	pprof.Do(t.Context(), pprof.Labels("test", label), func(ctx context.Context) {
		require.Positive(t, goroutines(t, label), "the profile must show the label of this goroutine")
		require.ErrorContains(t, b.worker.Run(ctx), "already running")
	})

	require.Zero(t, goroutines(t, label))
}
