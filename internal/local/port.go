package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// Ports are chosen from this range, not by listening on port 0. For port 0 the system chooses from the range of outgoing connections
// (Linux 32768 and up, macOS 49152 and up). While a server is down between Kill and Start, a client's own socket could take its port,
// or a client that keeps dialling could even connect to itself (TCP simultaneous open). A node of a Redis Cluster also listens on the port
// that is 10,000 higher, so the range is shorter than that.
const (
	portMin = 22000
	portMax = 31999

	// portTries bounds the attempts to find a free port, and to start a server on one.
	portTries = 20
)

const loopback = "127.0.0.1"

// reserved holds the UDP sockets of the ports that FreePort has returned, until the process ends.
var reserved struct {
	sync.Mutex

	sockets map[int]*net.UDPConn // by port
}

// FreePort returns a free port of 127.0.0.1 that the system does not assign by itself, and reserves it for as long as this process
// lives: no other call of FreePort, in any process, returns it, also while the server on it is down. Servers of this package and programs
// with Program.Ports keep it until they end, too. A program that does not use FreePort may still take it.
func FreePort() (int, error) {
	for range portTries {
		port := portMin + rand.IntN(portMax-portMin+1)
		// The servers use TCP only. So a UDP socket of the same number can stand for the reservation: the system ends it with the process.
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(loopback), Port: port})
		if err != nil {
			continue
		}
		if checkPort(port) != nil {
			_ = socket.Close()
			continue
		}
		reserved.Lock()
		defer reserved.Unlock()
		if reserved.sockets == nil {
			reserved.sockets = make(map[int]*net.UDPConn)
		}
		reserved.sockets[port] = socket
		return port, nil
	}
	return 0, problemf(ErrPortTaken, "no free port was found on %s between %d and %d", loopback, portMin, portMax)
}

// reservations returns copies of the sockets of those ports that FreePort has returned. The caller closes them.
func reservations(ports []int) ([]*os.File, error) {
	reserved.Lock()
	defer reserved.Unlock()
	var files []*os.File
	for _, port := range ports {
		socket, ours := reserved.sockets[port]
		if !ours {
			continue
		}
		file, err := socket.File()
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("copy the reservation of port %d: %w", port, err)
		}
		files = append(files, file)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

// checkPort returns nil if the port is free.
func checkPort(port int) error {
	// A child that is forked meanwhile would hold a copy of the listener until it has called exec, although it is closed here.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
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
