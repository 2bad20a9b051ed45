package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	masterName = "afterwrite"
	sentinels  = 3
	quorum     = 2
	// failoverTimeout is Sentinel's failover-timeout. After a failover that came to nothing it waits twice as long before the next.
	failoverTimeout = 10 * time.Second
	// topologyPatience bounds the start of a topology.
	topologyPatience = 60 * time.Second
)

// Sentinel is a master with replicas, which three sentinels watch.
type Sentinel struct {
	servers

	watchers []*Node
}

// startSentinel starts the servers, and blocks until the topology is healthy.
func (w *World) startSentinel(ctx context.Context, o TopologyOptions) (*Sentinel, error) {
	s := &Sentinel{servers: servers{world: w, options: o}}
	w.Topology = s
	if o.Partitions {
		s.network = newNetwork()
	}
	master, err := s.start(ctx, "redis-0", false)
	if err != nil {
		return s, err
	}
	for i := range cmp.Or(o.Replicas, 1) {
		if _, err := s.start(ctx, "redis-"+strconv.Itoa(i+1), false, "replicaof 127.0.0.1 "+strconv.Itoa(master.announced)); err != nil {
			return s, err
		}
	}
	for i := range sentinels {
		watcher, err := s.start(ctx, "sentinel-"+strconv.Itoa(i), true,
			"sentinel announce-ip 127.0.0.1", // not its source address
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", masterName, master.announced, quorum),
			fmt.Sprintf("sentinel auth-pass %s %s", masterName, nodePassword),
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", masterName, downAfter.Milliseconds()),
			fmt.Sprintf("sentinel failover-timeout %s %d", masterName, failoverTimeout.Milliseconds()))
		if err != nil {
			return s, err
		}
		s.watchers = append(s.watchers, watcher)
	}
	return s, AwaitHealthy(ctx, s, topologyPatience)
}

// URL implements Topology.
func (s *Sentinel) URL() string {
	hosts := make([]string, len(s.watchers))
	for i, watcher := range s.watchers {
		hosts[i] = watcher.Addr()
	}
	return fmt.Sprintf("redis-sentinel://:%s@%s/0?master=%s", nodePassword, strings.Join(hosts, ","), masterName)
}

// MasterOf implements Topology: all keys have the same master.
func (s *Sentinel) MasterOf(ctx context.Context, _ string) (*Node, error) {
	var problem error
	for _, watcher := range s.watchers {
		master, err := s.masterBy(ctx, watcher)
		if err == nil {
			return master, nil
		}
		problem = err
	}
	return nil, problem
}

// masterBy asks one sentinel for the master.
func (s *Sentinel) masterBy(ctx context.Context, watcher *Node) (*Node, error) {
	found, err := watcher.Client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
	if err != nil || len(found) != 2 {
		return nil, unhealthy("%s does not know the master: %v", watcher.Name, err)
	}
	return s.byAddress(net.JoinHostPort(found[0], found[1]))
}

// Switch implements Topology with SENTINEL FAILOVER. It does not wait until the switch is done.
func (s *Sentinel) Switch(ctx context.Context, _ *Node) error {
	return s.watchers[0].Client.Do(ctx, "SENTINEL", "FAILOVER", masterName).Err()
}

// Healthy implements Topology.
func (s *Sentinel) Healthy(ctx context.Context) error {
	master, err := s.MasterOf(ctx, "")
	if err != nil {
		return err
	}
	if err := master.replicates(ctx, len(s.nodes)-1); err != nil {
		return err
	}
	for _, watcher := range s.watchers {
		if err := s.watches(ctx, watcher, master); err != nil {
			return err
		}
	}
	return nil
}

// watches returns nil if the sentinel takes that node for the master, knows all others, and holds none of them for down.
func (s *Sentinel) watches(ctx context.Context, watcher, master *Node) error {
	seen, err := s.masterBy(ctx, watcher)
	if err != nil {
		return err
	}
	if seen != master {
		return unhealthy("%s takes %s for the master, not %s", watcher.Name, seen.Name, master.Name)
	}
	client := redis.NewSentinelClient(watcher.Client.Options())
	defer func() { _ = client.Close() }()
	about, err := client.Master(ctx, masterName).Result()
	replicas, err2 := client.Replicas(ctx, masterName).Result()
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("%s: %w", watcher.Name, err)
	}
	if about["flags"] != "master" || about["num-other-sentinels"] != strconv.Itoa(sentinels-1) {
		return unhealthy("%s has a master with the flags %s, and %s other sentinels", watcher.Name, about["flags"],
			about["num-other-sentinels"])
	}
	for _, replica := range replicas {
		if replica["flags"] != "slave" || replica["master-link-status"] != "ok" {
			return unhealthy("%s has a replica with the flags %s and link %s", watcher.Name, replica["flags"],
				replica["master-link-status"])
		}
	}
	if len(replicas) != len(s.nodes)-1 {
		return unhealthy("%s knows %d replicas", watcher.Name, len(replicas))
	}
	if err := client.CkQuorum(ctx, masterName).Err(); err != nil {
		return unhealthy("%s: %v", watcher.Name, err)
	}
	return nil
}

// Close implements Topology.
func (s *Sentinel) Close() error { return s.stop(append(s.watchers, s.nodes...)) }
