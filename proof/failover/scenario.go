package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	pausedFor = 15 * time.Second
	cutOffFor = 15 * time.Second
	// writesPausedFor is longer than a switch takes.
	writesPausedFor = 10 * time.Second
	// reshardSlots is the number of slots that move under load.
	reshardSlots = 3000
	// healPatience bounds the time from the end of the fault until the servers agree again.
	healPatience = 90 * time.Second
)

// scenario is one kind of fault.
type scenario struct {
	name string
	kind string
	// fault makes it happen, and blocks until it has ended.
	fault func(ctx context.Context, r *run, master *world.Node) error
	// partition gives half of the clients an api whose REDIS_URL is the first master.
	partition bool
}

var scenarios = []scenario{
	{name: "sentinel-kill", kind: world.KindSentinel, fault: kill},
	{name: "sentinel-pause", kind: world.KindSentinel, fault: freeze},
	{name: "sentinel-switch", kind: world.KindSentinel, fault: planned},
	{name: "sentinel-switch-paused", kind: world.KindSentinel, fault: pausedSwitch},
	{name: "sentinel-partition", kind: world.KindSentinel, fault: cutOff, partition: true},
	{name: "address-failover", kind: world.KindAddress, fault: planned},
	{name: "cluster-kill", kind: world.KindCluster, fault: kill},
	{name: "cluster-pause", kind: world.KindCluster, fault: freeze},
	{name: "cluster-switch", kind: world.KindCluster, fault: planned},
	{name: "cluster-reshard", kind: world.KindCluster, fault: reshard},
	{name: "cluster-add", kind: world.KindCluster, fault: addNode},
	{name: "cluster-partition", kind: world.KindCluster, fault: cutOff, partition: true},
}

func scenarioNames() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return names
}

// chosen returns the named scenarios.
func chosen(names []string) ([]scenario, error) {
	var found []scenario
	for _, name := range names {
		before := len(found)
		for _, s := range scenarios {
			if name == "all" || name == s.name || name == s.kind {
				found = append(found, s)
			}
		}
		if len(found) == before {
			return nil, fmt.Errorf("there is no scenario %q: the scenarios are %s, sentinel, address, cluster and all", name,
				strings.Join(scenarioNames(), ", "))
		}
	}
	return found, nil
}

func kill(ctx context.Context, r *run, master *world.Node) error {
	master.Kill()
	if err := world.Sleep(ctx, r.killed); err != nil {
		return err
	}
	return master.Start(ctx)
}

func freeze(ctx context.Context, _ *run, master *world.Node) error {
	master.Freeze()
	defer master.Thaw()
	return world.Sleep(ctx, pausedFor)
}

func planned(ctx context.Context, r *run, master *world.Node) error {
	return r.world.Topology.Switch(ctx, master)
}

// pausedSwitch stops all writes to the master before SENTINEL FAILOVER, so that the old master cannot go on acknowledging them.
func pausedSwitch(ctx context.Context, r *run, master *world.Node) error {
	if err := master.Client.Do(ctx, "CLIENT", "PAUSE", writesPausedFor.Milliseconds(), "WRITE").Err(); err != nil {
		return fmt.Errorf("CLIENT PAUSE: %w", err)
	}
	return r.world.Topology.Switch(ctx, master)
}

func cutOff(ctx context.Context, _ *run, master *world.Node) error {
	master.Isolate()
	defer master.Join()
	return world.Sleep(ctx, cutOffFor)
}

func reshard(ctx context.Context, r *run, master *world.Node) error {
	c := r.world.Topology.(*world.Cluster) //nolint:forcetypeassert // by the scenario's kind
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	other := masters[(slices.Index(masters, master)+1)%len(masters)]
	return c.Reshard(ctx, master, other, reshardSlots)
}

// addNode adds a master, and gives it a fair part of all slots.
func addNode(ctx context.Context, r *run, _ *world.Node) error {
	c := r.world.Topology.(*world.Cluster) //nolint:forcetypeassert // by the scenario's kind
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	added, err := c.Add(ctx)
	if err != nil {
		return err
	}
	for _, master := range masters {
		if err := c.Reshard(ctx, master, added, world.ClusterSlots/len(masters)/(len(masters)+1)); err != nil {
			return err
		}
	}
	return nil
}
