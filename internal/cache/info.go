package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Info is what a Redis server reports about itself (INFO, https://redis.io/docs/latest/commands/info/), or the masters of a cluster
// together (see ReadInfo). Fields that it does not report are zero.
type Info struct {
	Known bool // a server has answered
	Nodes int  // masters of a cluster that have answered; 0: it is a single server

	Version     string
	Role        string // "master" or "slave"; "cluster" for several masters
	Incarnation string // master_replid: each restart and each promotion changes it
	Replicas    int64
	Uptime      time.Duration

	Used         int64 // bytes of memory
	Limit        int64 // maxmemory in bytes; 0: none
	LimitKnown   bool  // some hosted services hide maxmemory
	LimitText    string
	SystemMemory int64 // bytes
	Policy       string
	Buffers      int64 // bytes of Used for the buffers of clients and of the append-only file

	AOFKnown          bool // false while the server loads its data: it reports the append-only file as off then
	AOF               bool
	AOFWriteFailing   bool // the last write to the append-only file failed
	AOFRewriteFailing bool // the last rewrite of it failed
	AOFFailing        bool // either of them, and the file is on
	Rewriting         bool

	Ops      int64 // commands per second
	Commands int64 // since the start

	Masters []Master  // those that have answered
	Read    time.Time // when ReadInfo has read it
}

// Master is one run of a server as a master.
type Master struct {
	Incarnation string // master_replid: each restart and each promotion changes it, and some other events
	Former      string // master_replid2: the incarnation whose data it has continued; zeros: none
	Uptime      time.Duration
}

// ParseInfo reads the reply to INFO, of all sections or of some.
func ParseInfo(text string) Info {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(fields[name], 10, 64) // 0 if it is not reported
		return n
	}
	failed := func(name string) bool { return fields[name] != "" && fields[name] != "ok" }
	i := Info{
		Known: true, Version: fields["redis_version"], Role: fields["role"], Incarnation: fields["master_replid"],
		Replicas: number("connected_slaves"), Uptime: time.Duration(number("uptime_in_seconds")) * time.Second,
		Used: number("used_memory"), Limit: number("maxmemory"), LimitKnown: fields["maxmemory"] != "",
		LimitText:    fields["maxmemory_human"],
		SystemMemory: number("total_system_memory"), Policy: fields["maxmemory_policy"],
		Buffers:  number("mem_clients_normal") + number("mem_aof_buffer"),
		AOFKnown: fields["aof_enabled"] != "" && fields["loading"] != "1", AOF: fields["aof_enabled"] == "1",
		AOFWriteFailing: failed("aof_last_write_status"), AOFRewriteFailing: failed("aof_last_bgrewrite_status"),
		Rewriting: fields["aof_rewrite_in_progress"] == "1" || fields["aof_rewrite_scheduled"] == "1",
		Ops:       number("instantaneous_ops_per_sec"), Commands: number("total_commands_processed"),
	}
	i.AOFFailing = i.AOF && (i.AOFWriteFailing || i.AOFRewriteFailing)
	if i.Role == "master" && i.Incarnation != "" {
		i.Masters = []Master{{Incarnation: i.Incarnation, Former: fields["master_replid2"], Uptime: i.Uptime}}
	}
	return i
}

// Full returns the used part of the memory limit; 0 without a limit.
func (i Info) Full() float64 {
	if i.Limit == 0 {
		return 0
	}
	return float64(i.Used) / float64(i.Limit)
}

// AtLeast reports whether the server's version is major.minor or newer. Valkey reports the Redis version from which it was forked.
func (i Info) AtLeast(major, minor int) bool {
	first, rest, _ := strings.Cut(i.Version, ".")
	second, _, _ := strings.Cut(rest, ".")
	x, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	y, _ := strconv.Atoi(second)
	return x > major || x == major && y >= minor
}

// merge merges the Info of another master of a cluster into i: it keeps the worse value, or the sum of values that add up.
func merge(i, other *Info) {
	if other.Full() > i.Full() {
		i.Used, i.Limit = other.Used, other.Limit
	}
	if policyRisk(other.Policy) > policyRisk(i.Policy) {
		i.Policy = other.Policy
	}
	if other.AOFKnown {
		i.AOF = other.AOF && (i.AOF || !i.AOFKnown)
		i.AOFKnown = true
		i.AOFWriteFailing = i.AOFWriteFailing || other.AOFWriteFailing
		i.AOFRewriteFailing = i.AOFRewriteFailing || other.AOFRewriteFailing
		i.AOFFailing = i.AOFFailing || other.AOFFailing
	}
	i.Rewriting = i.Rewriting || other.Rewriting
	i.Replicas, i.Ops, i.Commands = i.Replicas+other.Replicas, i.Ops+other.Ops, i.Commands+other.Commands
	i.Uptime = min(i.Uptime, other.Uptime)
	i.Masters = append(i.Masters, other.Masters...)
}

// policyRisk orders eviction policies by what they do to writes when memory runs out: lose them, refuse them, or neither.
func policyRisk(policy string) int {
	switch {
	case strings.HasPrefix(policy, "allkeys-"):
		return 2
	case policy == "noeviction":
		return 1
	default:
		return 0
	}
}

// ReadInfo runs INFO; sections may name one section (several only since Redis 7). On a cluster it reads every master at once, and fails
// only if none answers: the memory is from the fullest master, the policy is the most dangerous one.
func ReadInfo(ctx context.Context, client redis.UniversalClient, sections ...string) (Info, error) {
	var mu sync.Mutex
	var all []Info
	read := time.Now()
	err := eachMaster(ctx, client, func(ctx context.Context, node redis.Cmdable) error {
		text, err := node.Info(ctx, sections...).Result()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, ParseInfo(text))
		return nil
	})
	if len(all) == 0 {
		return Info{}, fmt.Errorf("read redis's info: %w", err)
	}
	merged := all[0]
	merged.Read = read
	for i := range all[1:] {
		merge(&merged, &all[i+1])
	}
	if _, cluster := client.(*redis.ClusterClient); cluster {
		merged.Nodes, merged.Role = len(all), "cluster"
	}
	return merged, nil
}

// eachMaster calls do for each server that holds data: on a cluster every master at once, otherwise the single server. It returns the first
// error, after all calls.
func eachMaster(ctx context.Context, client redis.UniversalClient, do func(context.Context, redis.Cmdable) error) error {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return do(ctx, node) })
	}
	return do(ctx, client)
}

// MemoryUse returns the used part of Redis's maxmemory (on a cluster, of the fullest master); 0 without a limit. One command to each
// master.
func (c *Cache) MemoryUse(ctx context.Context) (float64, error) {
	info, err := ReadInfo(ctx, c.client, "memory")
	return info.Full(), err
}
