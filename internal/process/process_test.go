package process

import (
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

func TestProcessDoesNotListenAtARefusedAddress(t *testing.T) {
	t.Parallel()
	errRefused := errors.New("open to everybody")
	p := Process{
		Plan: Plan{
			Name: "dashboard", Addr: func(c config.Config) string { return c.DashboardAddr },
			Pools:  func(config.Config) Pools { return Pools{Redis: 1} },
			Refuse: func(config.Config, net.Addr) error { return errRefused },
		},
		Servers: Servers{
			Log: slog.New(slog.DiscardHandler), Config: config.Config{RedisURL: "redis://127.0.0.1:1/0", DashboardAddr: "127.0.0.1:0"},
		},
	}
	defer p.Close()

	require.ErrorIs(t, p.open(t.Context()), errRefused)
	require.ErrorIs(t, p.serve(t.Context(), nil), errRefused)
}
