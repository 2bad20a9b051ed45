package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	// downAfter is how long a node must be silent until the others take it for down.
	downAfter = 2 * time.Second
	// nodePatience bounds one command to a node, which may be frozen.
	nodePatience = time.Second
	nodePassword = "topology"
)

// errNotHealthy is wrapped by the errors of Healthy.
var errNotHealthy = errors.New("the topology is not healthy")

func unhealthy(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errNotHealthy}, args...)...)
}

// Node is one Redis of a topology.
type Node struct {
	*local.Redis

	Name string
	// Client is a client of this node alone. Its commands take a second at most, and are not repeated.
	Client *redis.Client

	frozen    atomic.Bool
	announced int // the port under which all others know it
	source    string
	network   *network // nil without partitions
}

// Address returns the host and port under which clients and other nodes know the node.
func (n *Node) Address() string { return loopback(n.announced) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Freeze stops the process with SIGSTOP; its connections stay open. Thaw continues it.
func (n *Node) Freeze() {
	n.frozen.Store(true)
	_ = syscall.Kill(n.Pid(), syscall.SIGSTOP)
}

// Thaw continues a frozen process.
func (n *Node) Thaw() {
	n.frozen.Store(false)
	if n.Err() == nil { // else another process may have its number
		_ = syscall.Kill(n.Pid(), syscall.SIGCONT)
	}
}

// Isolate cuts the node off from all other nodes and sentinels. Clients still reach it. Only with TopologyOptions.Partitions.
func (n *Node) Isolate() { n.network.cut(n.source, true) }

// Join ends Isolate.
func (n *Node) Join() {
	if n.network != nil {
		n.network.cut(n.source, false)
	}
}

// replication reads INFO replication.
func (n *Node) replication(ctx context.Context) (map[string]string, error) {
	text, err := n.Client.Info(ctx, "replication").Result()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	return fields, nil
}

// replicates returns nil if the node is a master, and so many replicas are in sync with it.
func (n *Node) replicates(ctx context.Context, replicas int) error {
	info, err := n.replication(ctx)
	if err != nil {
		return err
	}
	synced := 0
	for i := range 2 * replicas {
		state := info["slave"+strconv.Itoa(i)]
		if strings.Contains(state, "state=online") && (strings.HasSuffix(state, "lag=0") || strings.HasSuffix(state, "lag=1")) {
			synced++
		}
	}
	if info["role"] != "master" || synced < replicas {
		return unhealthy("%s has role %s, and %d of %d replicas in sync", n.Name, info["role"], synced, replicas)
	}
	return nil
}

// TopologyOptions configure the Redis servers of a World.
type TopologyOptions struct {
	// Kind is KindSentinel, KindCluster or KindAddress; empty means a single server.
	Kind string
	// Replicas of each master; 0 means 1.
	Replicas int
	// MinReplicas is min-replicas-to-write, with a min-replicas-max-lag of 3 s; 0 means none.
	MinReplicas int
	// Partitions makes Isolate possible: the nodes' connections then pass through this process. Only on Linux.
	Partitions bool
}

// The kinds of topologies.
const (
	KindSentinel = "sentinel"
	KindCluster  = "cluster"
	KindAddress  = "address"
)

// Topology is a Redis of several nodes.
type Topology interface {
	// URL returns the value of REDIS_URL.
	URL() string
	// Nodes returns all nodes, in the order in which they were started.
	Nodes() []*Node
	// MasterOf returns the master of a key, as the sentinels or the nodes of the cluster see it. Isolated and frozen nodes are not asked.
	MasterOf(ctx context.Context, key string) (*Node, error)
	// Switch makes a replica of the master the new master, in the way that the kind recommends: SENTINEL FAILOVER, CLUSTER FAILOVER or
	// FAILOVER.
	Switch(ctx context.Context, master *Node) error
	// Healthy returns nil if all nodes and sentinels agree on the masters, and all replicas are in sync.
	Healthy(ctx context.Context) error
	// Close stops all servers.
	Close() error
}

// servers starts and holds the nodes of a topology.
type servers struct {
	world   *World
	options TopologyOptions
	network *network // nil without partitions
	nodes   []*Node
}

func (s *servers) Nodes() []*Node { return s.nodes }

// start starts a node with the lines of its configuration. The lines may depend on the node's source address and announced port.
func (s *servers) start(ctx context.Context, name string, sentinel bool, lines ...string) (*Node, error) {
	n := &Node{Name: name, network: s.network}
	port, err := local.FreePort()
	if err != nil {
		return nil, err
	}
	n.announced = port
	if s.network != nil {
		if n.source, err = s.network.source(); err != nil {
			return nil, err
		}
		lines = append(lines, "bind-source-addr "+n.source)
		if !sentinel {
			if n.announced, err = s.network.forward(n.source, port); err != nil {
				return nil, err
			}
		}
	}
	log, err := s.world.serverLog(name)
	if err != nil {
		return nil, err
	}
	options := local.RedisOptions{
		Dir: filepath.Join(s.world.Dir, name), Port: port, Log: log, File: true, Open: sentinel, Lines: lines,
	}
	if sentinel {
		options.Args = []string{"--sentinel"}
	} else {
		options.Password, options.AppendOnly, options.AppendFsync = nodePassword, true, s.world.options.Redis.AppendFsync
		options.Lines = append(options.Lines, s.dataLines(n)...)
	}
	if n.Redis, err = local.StartRedis(ctx, options); err != nil {
		return nil, err
	}
	n.Client = redis.NewClient(&redis.Options{
		Addr: n.Addr(), Password: options.Password, MaxRetries: -1, DialerRetries: 1, DialTimeout: nodePatience,
		ReadTimeout: nodePatience, PoolTimeout: nodePatience, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	if !sentinel {
		s.nodes = append(s.nodes, n)
	}
	return n, nil
}

// dataLines returns the settings of a node with data.
func (s *servers) dataLines(n *Node) []string {
	lines := []string{
		"masterauth " + nodePassword,
		"repl-diskless-sync-delay 0", // else a full synchronisation waits 5 s for further replicas
		"repl-timeout 10",
	}
	if s.options.MinReplicas > 0 {
		lines = append(lines, "min-replicas-to-write "+strconv.Itoa(s.options.MinReplicas), "min-replicas-max-lag 3")
	}
	if s.options.Kind == KindSentinel {
		lines = append(lines, "replica-announce-ip 127.0.0.1", "replica-announce-port "+strconv.Itoa(n.announced))
	}
	return lines
}

// byAddress returns the node with that announced address.
func (s *servers) byAddress(address string) (*Node, error) {
	for _, n := range s.nodes {
		if n.Address() == address {
			return n, nil
		}
	}
	return nil, unhealthy("no node has the address %q", address)
}

// reachable returns the nodes that are neither isolated nor frozen nor ended.
func (s *servers) reachable() []*Node {
	var nodes []*Node
	for _, n := range s.nodes {
		if n.Err() == nil && !n.frozen.Load() && (s.network == nil || !s.network.isolated(n.source)) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (s *servers) stop(nodes []*Node) error {
	problems := make([]error, 0, len(nodes))
	for _, n := range nodes {
		n.Thaw()
		n.Join()
		_ = n.Client.Close()
		n.Kill() // its data is not needed any more
	}
	if s.network != nil {
		problems = append(problems, s.network.close())
	}
	return errors.Join(problems...)
}

// Heal continues, starts and joins all nodes, and blocks for at most bound until the topology is healthy.
func Heal(ctx context.Context, t Topology, bound time.Duration) error {
	for _, n := range t.Nodes() {
		n.Thaw()
		n.Join()
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return AwaitHealthy(ctx, t, bound)
}

// AwaitHealthy blocks for at most bound until the topology is healthy.
func AwaitHealthy(ctx context.Context, t Topology, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		err := t.Healthy(ctx)
		if err == nil {
			return nil
		}
		if sleepErr := Sleep(ctx, healthEvery); sleepErr != nil {
			return fmt.Errorf("%w: %w", sleepErr, err)
		}
	}
}

const healthEvery = 100 * time.Millisecond
