package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	clusterMasters = 3
	// ClusterSlots is the number of slots of every cluster.
	ClusterSlots = 16384
	// moveBatch is the number of keys that one MIGRATE moves.
	moveBatch = 100
)

// Cluster is a Redis Cluster of three masters with replicas.
type Cluster struct {
	servers

	slots sync.Map // of the keys that were asked for
}

// startCluster starts the servers, and blocks until the topology is healthy.
func (w *World) startCluster(ctx context.Context, o TopologyOptions) (*Cluster, error) {
	c := &Cluster{servers: servers{world: w, options: o}}
	w.Topology = c
	if o.Partitions {
		c.network = newNetwork()
	}
	for i := range clusterMasters {
		n, err := c.startNode(ctx)
		if err != nil {
			return c, err
		}
		from, to := i*ClusterSlots/clusterMasters, (i+1)*ClusterSlots/clusterMasters-1
		if err := n.Client.ClusterAddSlotsRange(ctx, from, to).Err(); err != nil {
			return c, fmt.Errorf("give %s its slots: %w", n.Name, err)
		}
	}
	for _, master := range slices.Clone(c.nodes) {
		for range cmp.Or(o.Replicas, 1) {
			if err := c.addReplica(ctx, master); err != nil {
				return c, err
			}
		}
	}
	return c, AwaitHealthy(ctx, c, topologyPatience)
}

// startNode starts a node without slots, and introduces it to the others.
func (c *Cluster) startNode(ctx context.Context) (*Node, error) {
	bus, err := local.FreePort()
	if err != nil {
		return nil, err
	}
	number := len(c.nodes)
	lines := []string{
		"cluster-enabled yes", "cluster-port " + strconv.Itoa(bus),
		"cluster-node-timeout " + strconv.FormatInt(downAfter.Milliseconds(), 10),
		"cluster-allow-replica-migration no", // else a master that gave its slots away becomes a replica
	}
	n, err := c.start(ctx, "redis-"+strconv.Itoa(number), false, lines...)
	if err != nil {
		return nil, err
	}
	if c.network != nil {
		if bus, err = c.network.forward(n.source, bus); err != nil {
			return nil, err
		}
		for name, value := range map[string]string{
			"cluster-announce-port":     strconv.Itoa(n.announced),
			"cluster-announce-bus-port": strconv.Itoa(bus),
			"cluster-announce-ip":       "127.0.0.1",
		} {
			if err := n.Client.ConfigSet(ctx, name, value).Err(); err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
		if err := n.Client.ConfigRewrite(ctx).Err(); err != nil {
			return nil, fmt.Errorf("keep the announced address: %w", err)
		}
	}
	if err := n.Client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", number+1).Err(); err != nil {
		return nil, fmt.Errorf("set the epoch of %s: %w", n.Name, err)
	}
	if number > 0 {
		if err := c.nodes[0].Client.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", n.announced, bus).Err(); err != nil {
			return nil, fmt.Errorf("introduce %s: %w", n.Name, err)
		}
	}
	return n, nil
}

// addReplica starts a replica of the master.
func (c *Cluster) addReplica(ctx context.Context, master *Node) error {
	n, err := c.startNode(ctx)
	if err != nil {
		return err
	}
	id, err := master.id(ctx)
	if err != nil {
		return err
	}
	var problem error
	err = Await(ctx, topologyPatience, n.Name+" to be a replica", func(ctx context.Context) (bool, error) {
		problem = n.Client.ClusterReplicate(ctx, id).Err() // fails until it knows the master
		return problem == nil, nil
	})
	return errors.Join(err, problem)
}

func (n *Node) id(ctx context.Context) (string, error) {
	return n.Client.Do(ctx, "CLUSTER", "MYID").Text()
}

// URL implements Topology.
func (c *Cluster) URL() string {
	hosts := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		hosts[i] = n.Address()
	}
	return fmt.Sprintf("redis-cluster://:%s@%s", nodePassword, strings.Join(hosts, ","))
}

// MasterOf implements Topology.
func (c *Cluster) MasterOf(ctx context.Context, key string) (*Node, error) {
	slot, err := c.slot(ctx, key)
	if err != nil {
		return nil, err
	}
	return c.owner(ctx, slot)
}

// slot returns the slot of a key.
func (c *Cluster) slot(ctx context.Context, key string) (int, error) {
	if known, ok := c.slots.Load(key); ok {
		return known.(int), nil //nolint:forcetypeassert // see below
	}
	var problem error
	for _, n := range c.reachable() {
		slot, err := n.Client.ClusterKeySlot(ctx, key).Result()
		if err == nil {
			c.slots.Store(key, int(slot))
			return int(slot), nil
		}
		problem = err
	}
	return 0, unhealthy("no node answers: %v", problem)
}

// owner returns the master of a slot, as the reachable nodes see it.
func (c *Cluster) owner(ctx context.Context, slot int) (*Node, error) {
	var problem error
	for _, n := range c.reachable() {
		ranges, err := n.ranges(ctx)
		if err != nil {
			problem = err
			continue
		}
		for _, r := range ranges {
			if r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 {
				return c.byAddress(r.Nodes[0].Addr)
			}
		}
	}
	return nil, unhealthy("no node knows the master of slot %d: %v", slot, problem)
}

// ranges returns the ranges of slots with their nodes, the master first.
func (n *Node) ranges(ctx context.Context) ([]redis.ClusterSlot, error) {
	return n.Client.ClusterSlots(ctx).Result() //nolint:staticcheck // CLUSTER SHARDS does not put the master first
}

// Masters returns the nodes that have slots, as the reachable nodes see it.
func (c *Cluster) Masters(ctx context.Context) ([]*Node, error) {
	for _, n := range c.reachable() {
		ranges, err := n.ranges(ctx)
		if err != nil {
			continue
		}
		var masters []*Node
		for _, r := range ranges {
			master, err := c.byAddress(r.Nodes[0].Addr)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(masters, master) {
				masters = append(masters, master)
			}
		}
		return masters, nil
	}
	return nil, unhealthy("no node answers")
}

// replicaOf returns a replica of the master.
func (c *Cluster) replicaOf(ctx context.Context, master *Node) (*Node, error) {
	for _, n := range c.reachable() {
		info, err := n.replication(ctx)
		if err != nil {
			continue
		}
		if info["role"] == "slave" && net.JoinHostPort(info["master_host"], info["master_port"]) == master.Address() {
			return n, nil
		}
	}
	return nil, unhealthy("%s has no replica", master.Name)
}

// Switch implements Topology with CLUSTER FAILOVER, and blocks until the replica is the master.
func (c *Cluster) Switch(ctx context.Context, master *Node) error {
	replica, err := c.replicaOf(ctx, master)
	if err != nil {
		return err
	}
	if err := replica.Client.Do(ctx, "CLUSTER", "FAILOVER").Err(); err != nil {
		return fmt.Errorf("CLUSTER FAILOVER: %w", err)
	}
	return Await(ctx, failoverTimeout, "CLUSTER FAILOVER", func(ctx context.Context) (bool, error) {
		info, err := replica.replication(ctx)
		return err == nil && info["role"] == "master", nil
	})
}

// Healthy implements Topology.
func (c *Cluster) Healthy(ctx context.Context) error {
	view := ""
	for _, n := range c.nodes {
		seen, err := c.view(ctx, n)
		if err != nil {
			return err
		}
		if view != "" && seen != view {
			return unhealthy("%s does not agree on the slots", n.Name)
		}
		view = seen
	}
	masters, err := c.Masters(ctx)
	if err != nil {
		return err
	}
	for _, master := range masters {
		if err := master.replicates(ctx, cmp.Or(c.options.Replicas, 1)); err != nil {
			return err
		}
	}
	return nil
}

// view returns the masters and their slots as a node sees them. It returns an error if the node holds another one for down.
func (c *Cluster) view(ctx context.Context, n *Node) (string, error) {
	info, err := n.Client.ClusterInfo(ctx).Result()
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.Name, err)
	}
	if !strings.HasPrefix(info, "cluster_state:ok") {
		return "", unhealthy("%s: the cluster is down", n.Name)
	}
	text, err := n.Client.ClusterNodes(ctx).Result()
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.Name, err)
	}
	var masters []string
	known := 0
	for line := range strings.Lines(text) {
		// id, address, flags, master, ping, pong, epoch, link, slots
		fields := strings.Fields(line)
		flags := fields[2]
		if strings.Contains(flags, "fail") || strings.Contains(flags, "handshake") || fields[7] != "connected" {
			return "", unhealthy("%s has a node with the flags %s, %s", n.Name, flags, fields[7])
		}
		known++
		if strings.Contains(flags, "master") {
			masters = append(masters, fields[0]+" "+strings.Join(fields[8:], " "))
		} else {
			masters = append(masters, fields[0]+" of "+fields[3])
		}
	}
	if known != len(c.nodes) {
		return "", unhealthy("%s knows %d of %d nodes", n.Name, known, len(c.nodes))
	}
	slices.Sort(masters)
	return strings.Join(masters, "\n"), nil
}

// Close implements Topology.
func (c *Cluster) Close() error { return c.stop(c.nodes) }

// Reshard moves so many slots from one master to another, with all their keys, while clients use them.
func (c *Cluster) Reshard(ctx context.Context, from, to *Node, slots int) error {
	fromID, err := from.id(ctx)
	if err != nil {
		return err
	}
	toID, err := to.id(ctx)
	if err != nil {
		return err
	}
	owned, err := c.slotsOf(ctx, from)
	if err != nil {
		return err
	}
	for _, slot := range owned[:min(slots, len(owned))] {
		if err := c.move(ctx, slot, from, to, fromID, toID); err != nil {
			return fmt.Errorf("move slot %d: %w", slot, err)
		}
	}
	return nil
}

func (c *Cluster) slotsOf(ctx context.Context, n *Node) ([]int, error) {
	ranges, err := n.ranges(ctx)
	if err != nil {
		return nil, err
	}
	var slots []int
	for _, r := range ranges {
		if r.Nodes[0].Addr != n.Address() {
			continue
		}
		for slot := r.Start; slot <= r.End; slot++ {
			slots = append(slots, slot)
		}
	}
	return slots, nil
}

// move moves a slot as redis-cli does.
func (c *Cluster) move(ctx context.Context, slot int, from, to *Node, fromID, toID string) error {
	if err := to.Client.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID).Err(); err != nil {
		return err
	}
	if err := from.Client.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID).Err(); err != nil {
		return err
	}
	for {
		keys, err := from.Client.ClusterGetKeysInSlot(ctx, slot, moveBatch).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", "127.0.0.1", to.announced, "", 0, nodePatience.Milliseconds(), "AUTH", nodePassword, "KEYS"}
		for _, key := range keys {
			args = append(args, key)
		}
		if err := from.Client.Do(ctx, args...).Err(); err != nil {
			return err
		}
	}
	// First the new master, so that there is no moment without one.
	for _, n := range []*Node{to, from} {
		if err := n.Client.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", toID).Err(); err != nil {
			return err
		}
	}
	return nil
}

// Add starts another master with replicas. It has no slots.
func (c *Cluster) Add(ctx context.Context) (*Node, error) {
	n, err := c.startNode(ctx)
	if err != nil {
		return nil, err
	}
	for range cmp.Or(c.options.Replicas, 1) {
		if err := c.addReplica(ctx, n); err != nil {
			return nil, err
		}
	}
	return n, AwaitHealthy(ctx, c, topologyPatience)
}
