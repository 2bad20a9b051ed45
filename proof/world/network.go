package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/afterwrite/afterwrite/internal/local"
)

// network passes the connections of a topology through this process, to cut a node off from the others. Every node and sentinel connects
// from an address of its own in 127.0.1.0/24, so a connection's two ends are known. Clients connect from 127.0.0.1 and always pass.
//
// A cut connection stays open, and its data waits, as in a network that drops packets.
type network struct {
	mu        sync.Mutex
	changed   *sync.Cond
	sources   int
	cutOff    map[string]bool // by source address
	closed    bool
	listeners []net.Listener
	conns     map[net.Conn]bool
}

func newNetwork() *network {
	n := &network{cutOff: make(map[string]bool), conns: make(map[net.Conn]bool)}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// source returns an unused source address.
func (n *network) source() (string, error) {
	n.mu.Lock()
	n.sources++
	address := fmt.Sprintf("127.0.1.%d", n.sources)
	n.mu.Unlock()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", fmt.Errorf("partitions need the addresses 127.0.1.0/24, which Linux has: %w", err)
	}
	return address, listener.Close()
}

// cut cuts a node off from all other nodes and sentinels, or ends that.
func (n *network) cut(source string, off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cutOff[source] = off
	n.changed.Broadcast()
}

func (n *network) isolated(source string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cutOff[source]
}

// forward accepts connections to a port of the node with that source address. It returns the port to connect to.
func (n *network) forward(node string, port int) (int, error) {
	announced, err := local.FreePort()
	if err != nil {
		return 0, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", loopback(announced))
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, listener)
	n.mu.Unlock()
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go n.connect(in, node, loopback(port))
		}
	}()
	return announced, nil
}

// connect passes one connection to the node.
func (n *network) connect(in net.Conn, node, target string) {
	source, _, _ := net.SplitHostPort(in.RemoteAddr().String())
	passes := func() bool { return source == "127.0.0.1" || source == node || !n.cutOff[source] && !n.cutOff[node] }
	if !n.wait(passes) {
		_ = in.Close()
		return
	}
	out, err := new(net.Dialer).DialContext(context.Background(), "tcp", target)
	if err != nil {
		_ = in.Close() // as if it had been refused
		return
	}
	if !n.keep(in, out) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(in, out, passes) })
	both.Go(func() { n.pump(out, in, passes) })
	both.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, in)
	delete(n.conns, out)
}

// keep records connections for close. It returns false if close was called.
func (n *network) keep(conns ...net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range conns {
		if n.closed {
			_ = c.Close()
		} else {
			n.conns[c] = true
		}
	}
	return !n.closed
}

// pump copies data until either end closes. It closes both.
func (n *network) pump(from, to net.Conn, passes func() bool) {
	buffer := make([]byte, 1<<16)
	for {
		got, err := from.Read(buffer)
		if !n.wait(passes) {
			break
		}
		if got > 0 {
			if _, err := to.Write(buffer[:got]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = from.Close()
	_ = to.Close()
}

// wait blocks until the condition holds. It returns false if the network was closed.
func (n *network) wait(passes func() bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.closed && !passes() {
		n.changed.Wait()
	}
	return !n.closed
}

func (n *network) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.changed.Broadcast()
	problems := make([]error, 0, len(n.listeners))
	for _, listener := range n.listeners {
		problems = append(problems, listener.Close())
	}
	n.listeners = nil // a second close does nothing
	for c := range n.conns {
		_ = c.Close()
	}
	return errors.Join(problems...)
}
