package world

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/afterwrite/afterwrite/internal/local"
)

// Address is a master with replicas behind one address that always leads to the master, as a proxy or a hosted Redis provides it. Nothing
// fails over by itself.
type Address struct {
	servers

	port     int
	listener net.Listener

	mu     sync.Mutex
	master *Node
	conns  map[net.Conn]bool
}

// startAddress starts the servers, and blocks until the topology is healthy.
func (w *World) startAddress(ctx context.Context, o TopologyOptions) (*Address, error) {
	a := &Address{servers: servers{world: w, options: o}, conns: make(map[net.Conn]bool)}
	w.Topology = a
	master, err := a.start(ctx, "redis-0", false)
	if err != nil {
		return a, err
	}
	for i := range cmp.Or(o.Replicas, 1) {
		if _, err := a.start(ctx, "redis-"+strconv.Itoa(i+1), false, "replicaof 127.0.0.1 "+strconv.Itoa(master.announced)); err != nil {
			return a, err
		}
	}
	a.master = master
	if a.port, err = local.FreePort(); err != nil {
		return a, err
	}
	if a.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", loopback(a.port)); err != nil {
		return a, fmt.Errorf("listen: %w", err)
	}
	go a.serve()
	return a, AwaitHealthy(ctx, a, topologyPatience)
}

// serve connects clients with the master.
func (a *Address) serve() {
	for {
		in, err := a.listener.Accept()
		if err != nil {
			return // closed
		}
		a.mu.Lock()
		out, err := new(net.Dialer).Dial("tcp", a.master.Address())
		if err != nil {
			_ = in.Close()
			a.mu.Unlock()
			continue
		}
		a.conns[in], a.conns[out] = true, true
		a.mu.Unlock()
		go a.copy(in, out)
		go a.copy(out, in)
	}
}

func (a *Address) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, from)
}

// URL implements Topology.
func (a *Address) URL() string { return "redis://:" + nodePassword + "@" + loopback(a.port) + "/0" }

// MasterOf implements Topology.
func (a *Address) MasterOf(context.Context, string) (*Node, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.master, nil
}

// Switch implements Topology with FAILOVER. It blocks until a replica is the master, then moves the address to it and closes all
// connections to the old one.
func (a *Address) Switch(ctx context.Context, master *Node) error {
	if err := master.Client.Do(ctx, "FAILOVER").Err(); err != nil {
		return fmt.Errorf("FAILOVER: %w", err)
	}
	return Await(ctx, failoverTimeout, "FAILOVER", func(ctx context.Context) (bool, error) {
		for _, n := range a.nodes {
			info, err := n.replication(ctx)
			if err == nil && n != master && info["role"] == "master" {
				a.lead(n)
				return true, nil
			}
		}
		return false, nil
	})
}

// lead moves the address to another node.
func (a *Address) lead(to *Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.master = to
	for c := range a.conns {
		_ = c.Close()
	}
}

// Healthy implements Topology.
func (a *Address) Healthy(ctx context.Context) error {
	master, _ := a.MasterOf(ctx, "")
	return master.replicates(ctx, len(a.nodes)-1)
}

// Close implements Topology.
func (a *Address) Close() error {
	if a.listener != nil {
		_ = a.listener.Close()
	}
	a.mu.Lock()
	for c := range a.conns {
		_ = c.Close()
	}
	a.mu.Unlock()
	return a.stop(a.nodes)
}
