package health

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// readInfo reads INFO, on a cluster of every master that answers.
func (s *sampler) readInfo(ctx context.Context) error {
	if s.cluster == nil {
		info, err := ask(ctx, s.redis)
		if err == nil {
			s.info = info
		}
		return err
	}
	var mu sync.Mutex
	var all []Redis
	_ = s.cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		info, err := ask(ctx, node)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, info)
		}
		return err
	})
	s.info = worst(all)
	return nil
}

// ask reads INFO of one node. If an ACL forbids that, nothing is known, which is not an error: counters are not affected.
func ask(ctx context.Context, node redis.Cmdable) (Redis, error) {
	text, err := node.Info(ctx).Result()
	if _, refused := errors.AsType[redis.Error](err); refused {
		return Redis{}, nil
	}
	if err != nil {
		return Redis{}, fmt.Errorf("read INFO of Redis: %w", err)
	}
	return parseInfo(text), nil
}

// worst combines the masters of a cluster that answer.
func worst(nodes []Redis) Redis {
	if len(nodes) == 0 {
		return Redis{}
	}
	w := nodes[0]
	for _, r := range nodes[1:] {
		if r.Full() > w.Full() {
			w.Used, w.Limit = r.Used, r.Limit
		}
		if policyRisk(r.Policy) > policyRisk(w.Policy) {
			w.Policy = r.Policy
		}
		w.Known = w.Known && r.Known
		w.AOF, w.AOFFailing, w.Rewriting = w.AOF && r.AOF, w.AOFFailing || r.AOFFailing, w.Rewriting || r.Rewriting
		w.Replicas, w.Ops, w.Uptime = w.Replicas+r.Replicas, w.Ops+r.Ops, min(w.Uptime, r.Uptime)
	}
	w.Nodes, w.Role = len(nodes), "cluster"
	return w
}

// policyRisk orders eviction policies by what they do when memory runs out: lose writes, refuse writes, or neither.
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

// parseInfo parses the answer to INFO (https://redis.io/docs/latest/commands/info/).
func parseInfo(text string) Redis {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(fields[name], 10, 64) // 0 if missing
		return n
	}
	failed := func(name string) bool { return fields[name] != "" && fields[name] != "ok" }
	return Redis{
		Version: fields["redis_version"], Role: fields["role"], Replicas: number("connected_slaves"),
		Uptime: time.Duration(number("uptime_in_seconds")) * time.Second,
		Used:   number("used_memory"), Limit: number("maxmemory"), Policy: fields["maxmemory_policy"],
		AOF: fields["aof_enabled"] == "1", Rewriting: fields["aof_rewrite_in_progress"] == "1",
		AOFFailing: fields["aof_enabled"] == "1" && (failed("aof_last_write_status") || failed("aof_last_bgrewrite_status")),
		Ops:        number("instantaneous_ops_per_sec"), Known: true,
	}
}
