package local

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two test programs at the same time must not choose the same port, not even while a server is between Kill and Start.
func TestFreePortIsReserved(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	require.NoError(t, err)
	require.NoError(t, checkPort(port), "a server can listen on it")
	_, err = net.ListenPacket("udp", address(port))
	require.Error(t, err, "another FreePort cannot reserve it")
}
