package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are chosen from this range, not by listening on port 0. For port 0 the system chooses from the range of outgoing connections
// (Linux 32768 and up, macOS 49152 and up). While a server is down between Kill and Start, a client's own socket could take its port,
// or a client that keeps dialling could even connect to itself (TCP simultaneous open).
const (
	portMin = 20000
	portMax = 31999

	// portTries bounds the attempts to find a free port, and to start a server on one.
	portTries = 20
)

const loopback = "127.0.0.1"

// reserved holds the UDP sockets of the ports that FreePort has returned, until the process ends.
var reserved struct {
	sync.Mutex

	sockets []net.PacketConn
}

// FreePort returns a free port of 127.0.0.1 that the system does not assign by itself, and reserves it for as long as this process
// lives: no other call of FreePort, in any process, returns it, also while the server on it is down. A program that does not use
// FreePort may still take it.
func FreePort() (int, error) {
	for range portTries {
		port := portMin + rand.IntN(portMax-portMin+1)
		// The servers use TCP only. So a UDP socket of the same number can stand for the reservation: the system ends it with the process.
		socket, err := net.ListenPacket("udp", address(port)) //nolint:noctx // on the loopback it does not block
		if err != nil {
			continue
		}
		if checkPort(port) != nil {
			_ = socket.Close()
			continue
		}
		reserved.Lock()
		reserved.sockets = append(reserved.sockets, socket)
		reserved.Unlock()
		return port, nil
	}
	return 0, problemf(ErrPortTaken, "no free port was found on %s between %d and %d", loopback, portMin, portMax)
}

// checkPort returns nil if the port is free.
func checkPort(port int) error {
	listener, err := net.Listen("tcp", address(port)) //nolint:noctx // on the loopback it does not block
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address(port), err)
	}
	return listener.Close()
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

func portTaken(server string, port int) error {
	return problemf(ErrPortTaken, "%s cannot listen on %s, the port is taken: stop what uses it, or choose another port",
		server, address(port))
}
