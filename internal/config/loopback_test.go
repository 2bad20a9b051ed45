package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

func TestLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:8081": true, "127.8.0.1:1": true, "[::1]:8081": true, "localhost:8081": true, "[::ffff:127.0.0.1]:80": true,
		"0.0.0.0:8081": false, ":8081": false, "[::]:8081": false, "10.0.0.1:8081": false, "admin.example:8081": false, "nonsense": false,
	} {
		require.Equal(t, want, config.Loopback(addr), addr)
	}
}
