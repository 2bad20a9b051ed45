package cache

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// An answer that comes at the moment when the caller's time ends, or the Writer does, is known: its outcome must not be unknown.
func TestAnAnswerThatHasComeIsReturned(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // select picks one of those that are ready at random
		w := &Writer{done: make(chan struct{})}
		r := &request{writes: make([]Write, 1), outcomes: []Outcome{{Value: 7}}, done: make(chan struct{})}
		close(r.done)
		close(w.done)
		require.Equal(t, []Outcome{{Value: 7}}, w.await(ctx, r))
	}
}
