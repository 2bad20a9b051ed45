package auth

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// A process may never have seen the session, or have dropped it.
func TestSignOutInAnOutageEndsUnknownSessions(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	log := slog.New(slog.DiscardHandler)
	token := newSessions(client, "", log, time.Now).begin(t.Context(), User{Name: "olga", Role: Operator, Hash: "x"})
	s := newSessions(client, "", log, time.Now)
	down, cancel := context.WithCancel(t.Context())
	cancel()

	require.Error(t, s.end(down, token))
	require.Error(t, s.end(down, "made up"))

	_, ok := s.find(t.Context(), token)
	require.False(t, ok)
	require.Equal(t, []string{s.name(token)}, s.undeleted(), "run deletes it from Redis")
}

// If the process forgot a sign-out that Redis has missed, Redis would still report the session as valid.
func TestSignOutsAreNotForgottenWithManySessions(t *testing.T) {
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
	require.Len(t, s.undeleted(), signedOut)
	for _, token := range tokens {
		require.True(t, s.kept[s.name(token)].signedOut)
	}

	for name, one := range s.kept { // the bound holds even if all were signed out
		one.signedOut = true
		s.kept[name] = one
	}
	s.begin(t.Context(), user)
	require.Len(t, s.kept, maxKept)
}
