package worker

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDrainsTakeTurnsUnlessOneTakesLong(t *testing.T) {
	t.Parallel()
	turns := newTurns()
	first := turns.wait(t.Context())
	require.Len(t, turns, 1)

	began := time.Now()
	second := turns.wait(t.Context())
	require.GreaterOrEqual(t, time.Since(began), patience, "the first is not done")
	second()
	require.Len(t, turns, 1, "the turn was not its own")

	next := make(chan func())
	go func() { next <- turns.wait(context.Background()) }()
	first()
	(<-next)()
	require.Empty(t, turns)

	over, cancel := context.WithCancel(t.Context())
	cancel()
	held := turns.wait(t.Context())
	turns.wait(over)()
	require.Len(t, turns, 1)
	held()
}
