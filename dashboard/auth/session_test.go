package auth

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// What a process does not know to be over it would ask Redis about, which still has it.
func TestManySessionsDoNotMakeASignOutForgotten(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	s := newSessions(client, "", slog.New(slog.DiscardHandler), time.Now)
	user := User{Name: "olga", Role: Operator, Hash: "x"}
	const signedOut = 20
	var tokens []string
	for range signedOut {
		tokens = append(tokens, s.begin(t.Context(), user))
	}
	require.NoError(t, client.Close())
	for _, token := range tokens {
		require.Error(t, s.end(t.Context(), token))
	}
	for range maxKept + 100 {
		last := s.begin(t.Context(), user)
		_, ok := s.find(t.Context(), last)
		require.True(t, ok)
	}
	require.Len(t, s.kept, maxKept)
	require.Len(t, s.owed(), signedOut)
	for _, token := range tokens {
		require.True(t, s.kept[s.name(token)].over)
	}

	for name, one := range s.kept { // even if all were
		one.over = true
		s.kept[name] = one
	}
	s.begin(t.Context(), user)
	require.Len(t, s.kept, maxKept)
}
