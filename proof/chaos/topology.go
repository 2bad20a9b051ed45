package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// healPatience bounds the wait until the nodes agree and are in sync after a fault. Sentinel takes about 20 s to make a replica of an
	// old master that was started again.
	healPatience = 90 * time.Second
	// reshardMax is the largest number of slots that move at once.
	reshardMax = 2000
)

// nodeFaults returns the faults of a topology's nodes. They are sequential, and each waits until all nodes are healthy: so there is always
// another copy.
func nodeFaults(topology string) []faultType {
	nodes := []string{targetNodes}
	types := []faultType{
		{4, faultKill, nodes, 50 * time.Millisecond, 6 * time.Second},
		{3, faultFreeze, nodes, 500 * time.Millisecond, 8 * time.Second},
		{3, faultSwitch, nodes, 0, 0},
		{2, faultCut, nodes, 2 * time.Second, 8 * time.Second},
	}
	if topology == world.KindCluster {
		types = append(types, faultType{2, faultReshard, nodes, 0, 0})
	}
	return types
}

// healthy waits until all nodes are healthy. It returns false at the end of the load.
func (k *killer) healthy(ctx context.Context) bool {
	err := world.AwaitHealthy(ctx, k.rig.world.Topology, healPatience)
	if err != nil && ctx.Err() == nil {
		k.ledger.findings.add(targetNodes, err.Error(), nil)
	}
	return err == nil
}

// strike executes a fault of a node, and returns the node's name. Kills and pauses hit any node, the others a master.
func (k *killer) strike(ctx, hard context.Context, f fault) string {
	t := k.rig.world.Topology
	n := t.Nodes()[f.pick%len(t.Nodes())]
	var err error
	switch f.kind {
	case faultKill:
		n.Kill()
		pause(ctx, f.lasts)
		err = n.Start(hard)
	case faultFreeze:
		n.Freeze()
		pause(ctx, f.lasts)
		n.Thaw()
	default:
		if n, err = t.MasterOf(hard, fmt.Sprint("probe:", f.pick)); err == nil {
			err = k.strikeMaster(ctx, hard, f, n)
		}
	}
	if err != nil && hard.Err() == nil {
		k.ledger.findings.add(targetNodes, fmt.Sprintf("%s failed: %v", f, err), nil)
	}
	if n == nil {
		return "no node"
	}
	return n.Name
}

func (k *killer) strikeMaster(ctx, hard context.Context, f fault, master *world.Node) error {
	switch f.kind {
	case faultSwitch:
		return k.rig.world.Topology.Switch(hard, master)
	case faultCut:
		master.Isolate()
		pause(ctx, f.lasts)
		master.Join()
	case faultReshard:
		return k.reshard(hard, master, f.pick)
	case faultKill, faultFreeze, faultForget:
	}
	return nil
}

// reshard moves slots to the next master.
func (k *killer) reshard(ctx context.Context, from *world.Node, pick int) error {
	c, ok := k.rig.world.Topology.(*world.Cluster)
	if !ok {
		return nil
	}
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	to := masters[(slices.Index(masters, from)+1)%len(masters)]
	return c.Reshard(ctx, from, to, 1+pick%reshardMax)
}
