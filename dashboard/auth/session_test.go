package auth

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

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
		require.True(t, s.kept[s.name(token)].over)
	}

	for name, one := range s.kept { // the bound holds even if all were signed out
		one.over = true
		s.kept[name] = one
	}
	s.begin(t.Context(), user)
	require.Len(t, s.kept, maxKept)
}
