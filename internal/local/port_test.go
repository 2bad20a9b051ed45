package local

import (
	"net"
	"os"
	"os/exec"
	"sync"
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

// A child has copies of all sockets between fork and exec.
func TestFreePortIsFreeWhileProcessesStart(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("true")
	require.NoError(t, err)
	done := make(chan struct{})
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.CommandContext(t.Context(), program).Run()
				}
			}
		})
	}
	for range 300 {
		port, err := FreePort()
		require.NoError(t, err)
		require.NoError(t, checkPort(port))
	}
	close(done)
	starting.Wait()
}

// The owner of a server may die while the server starts. Until the server ends, too, nobody else may choose its port.
func TestPortIsReservedUntilItsServerEnds(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	require.NoError(t, err)
	cat, err := exec.LookPath("cat")
	require.NoError(t, err)
	in, hold, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	process, err := Program{Path: cat, Stdin: in, Ports: []int{port}}.Start() // it runs until its input ends
	require.NoError(t, err)

	reserved.Lock() // as if this process had died
	require.NoError(t, reserved.sockets[port].Close())
	delete(reserved.sockets, port)
	reserved.Unlock()
	_, err = net.ListenPacket("udp", address(port))
	require.Error(t, err)

	require.NoError(t, hold.Close())
	<-process.Done()
	socket, err := net.ListenPacket("udp", address(port))
	require.NoError(t, err)
	require.NoError(t, socket.Close())
}
