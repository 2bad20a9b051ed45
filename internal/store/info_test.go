package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInfoDescribesTheServer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, info.Version)
	require.Greater(t, info.VersionNumber, 100_000)
	require.WithinDuration(t, time.Now(), info.Now, 10*time.Second)
	require.False(t, info.InRecovery)
	require.False(t, info.ReadOnly)
	require.Positive(t, info.MaxConnections)

	exec(t, s, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	info, err = open(t, s.url, Options{}).Info(t.Context())
	require.NoError(t, err)
	require.True(t, info.ReadOnly)
}
