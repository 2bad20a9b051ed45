package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are picked from this range and not by listening on port 0. The system gives port 0 a number that it also gives
// to outgoing connections (Linux 32768 and up, macOS 49152 and up): while the server is down between Kill and Start, a client's
// own socket may take it, and a client that keeps dialling may even connect to itself (TCP simultaneous open).
const (
	portMin = 20000
	portMax = 31999

	// portTries bounds the picking, and the starting again after a lost race for the port.
	portTries = 20
)

const loopback = "127.0.0.1"

// FreePort returns a port of 127.0.0.1 on which nobody listens now, and which the system gives to nobody by itself. Another
// process that asks for it may take it at any time.
func FreePort() (int, error) {
	for range portTries {
		port := portMin + rand.IntN(portMax-portMin+1)
		if checkPort(port) == nil {
			return port, nil
		}
	}
	return 0, problemf(ErrPortTaken, "no free port was found on %s between %d and %d", loopback, portMin, portMax)
}

// checkPort is nil when the port can be listened on.
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
