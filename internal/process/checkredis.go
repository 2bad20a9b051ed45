package process

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

func (c Checks) checkRedis(ctx context.Context) []Finding {
	err := c.Redis.Ping(ctx).Err()
	if err == nil && c.Cache != nil {
		err = c.Cache.Ping(ctx)
	}
	if denied(err) {
		return c.checkNodes(ctx)
	}
	if err != nil {
		return []Finding{{
			Name: "redis", Status: Refused, Detail: "does not answer (" + oneLine(err) + ")",
			Fix: "start it, or correct REDIS_URL",
		}}
	}
	findings := append(c.checkNodes(ctx), checkRedisClock(ctx, c.Redis))
	if c.Cache != nil {
		findings = append(findings, c.checkLayout(ctx))
	}
	return findings
}

// prefix returns that of the namespace.
func (c Checks) prefix() string {
	if c.Cache == nil {
		return ""
	}
	return c.Cache.Prefix()
}

func checkRedisClock(ctx context.Context, client redis.UniversalClient) Finding {
	before := time.Now()
	there, err := client.Time(ctx).Result()
	if err != nil {
		return unchecked("redis clock", err)
	}
	return checkClock("redis clock", before, there, time.Now())
}

// checkNodes checks every master of a cluster, or the only server.
func (c Checks) checkNodes(ctx context.Context) []Finding {
	cluster, ok := c.Redis.(*redis.ClusterClient)
	if !ok {
		return c.checkNode(ctx, c.Redis, "redis")
	}
	var mu sync.Mutex
	var findings []Finding
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		found := c.checkNode(ctx, node, "redis "+node.Options().Addr)
		mu.Lock()
		defer mu.Unlock()
		findings = append(findings, found...)
		return nil
	})
	if err != nil {
		findings = append(findings, unchecked("redis cluster", err))
	}
	return findings
}

func (c Checks) checkNode(ctx context.Context, node redis.Cmdable, name string) []Finding {
	text, err := node.Info(ctx).Result()
	if denied(err) {
		return []Finding{checkPermissions(ctx, node, &cache.Info{}, c.prefix(), name)}
	}
	if err != nil {
		return []Finding{unchecked(name, err)}
	}
	info := cache.ParseInfo(text)
	findings := []Finding{
		checkVersion(&info, name),
		checkPolicy(&info, name),
		checkPersistence(ctx, node, &info, name),
		checkPermissions(ctx, node, &info, c.prefix(), name),
	}
	if c.Durability != "" {
		findings = append(findings, c.checkDurability(ctx, node, &info, name))
	}
	return findings
}

// checkVersion also refuses a replica, which accepts no writes.
func checkVersion(info *cache.Info, name string) Finding {
	f := Finding{Name: name, Status: OK, Detail: "version " + info.Version}
	switch {
	case !info.AtLeast(6, 2):
		f.Status, f.Fix = Refused, "afterwrite needs Redis 6.2 or newer: upgrade it"
	case info.Role == "slave":
		f.Status, f.Detail = Refused, f.Detail+", a replica, which accepts no writes"
		f.Fix = "set REDIS_URL to the primary, or to redis-sentinel://"
	}
	return f
}

// checkPolicy refuses policies under which Redis may evict dirty entries. volatile-* evicts only entries with a TTL, which are clean. A
// missing memory limit is a warning.
func checkPolicy(info *cache.Info, name string) Finding {
	name += " memory policy"
	policy := info.Policy
	f := Finding{Name: name, Status: OK, Detail: policy + ", " + memoryLimit(info)}
	switch {
	case policy == "":
		return unchecked(name, errors.New("INFO does not have the policy"))
	case policy != "noeviction" && !strings.HasPrefix(policy, "volatile-"):
		f.Status = Refused
		f.Detail = policy + ": when memory runs out, Redis would evict counters that Postgres does not have yet"
		f.Fix = "redis-cli CONFIG SET maxmemory-policy noeviction"
	case info.LimitKnown && info.Limit == 0:
		f.Status = Warning
		f.Detail = policy + ", no memory limit: when memory runs out, the system kills Redis; with a limit, Redis refuses writes instead"
		f.Fix = "redis-cli CONFIG SET maxmemory " + spareMemory(info) + ", and the same in redis.conf (or what the machine can spare)"
	}
	return f
}

const mib = 1 << 20

// spareMemory suggests a limit in Redis's notation: half of the machine's memory, because a rewrite of the AOF may need as much again, or
// 1gb if INFO does not report it.
func spareMemory(info *cache.Info) string {
	if info.SystemMemory < 2*mib {
		return "1gb"
	}
	return strconv.FormatInt(info.SystemMemory/2/mib, 10) + "mb"
}

func memoryLimit(info *cache.Info) string {
	if info.Limit > 0 {
		return "limit " + info.LimitText
	}
	return "no memory limit"
}

const unsynced = "every write that Postgres does not have yet (the last seconds; in an outage of Postgres, all since it began)"

// checkPersistence warns if a restart of Redis loses writes.
func checkPersistence(ctx context.Context, node redis.Cmdable, info *cache.Info, name string) Finding {
	name += " persistence"
	switch {
	case !info.AOFKnown:
		return unchecked(name, errors.New("INFO does not have aof_enabled"))
	case !info.AOF:
		return Finding{
			Name: name, Status: Warning, Detail: "AOF is OFF: when Redis restarts or crashes, it loses " + unsynced,
			Fix: "redis-cli CONFIG SET appendonly yes, and the same in redis.conf",
		}
	}
	values, err := node.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return Finding{
			Name: name, Status: Warning, Detail: "AOF is on; could not check appendfsync (" + oneLine(err) + ")",
			Fix: "make sure that it is everysec or always",
		}
	}
	switch fsync := values["appendfsync"]; fsync {
	case "always":
		return Finding{Name: name, Status: OK, Detail: "AOF is on, appendfsync always"}
	case "no":
		return Finding{
			Name: name, Status: Warning,
			Detail: "AOF is on, appendfsync no: a crash of the machine may lose about 30 seconds of writes",
			Fix:    "redis-cli CONFIG SET appendfsync everysec",
		}
	default:
		return Finding{
			Name: name, Status: OK,
			Detail: fmt.Sprintf("AOF is on, appendfsync %s: a crash of the machine may lose the last second of writes", fsync),
		}
	}
}

func (c Checks) checkLayout(ctx context.Context) Finding {
	const name = "redis layout"
	// CheckMeta would store the settings in a new Redis, but `afterwrite doctor` must not.
	known, err := c.Redis.Exists(ctx, c.Cache.Prefix()+cache.SettingsKey).Result()
	if err != nil {
		return unchecked(name, err)
	}
	if known == 0 {
		return Finding{Name: name, Status: OK, Detail: "not used by afterwrite yet"}
	}
	err = c.Cache.CheckMeta(ctx)
	if settings, ok := errors.AsType[*cache.SettingsError](err); ok {
		return Finding{
			Name: name, Status: Refused, Detail: settings.What(), Fix: settings.Fix(),
		}
	}
	if err != nil {
		return unchecked(name, err)
	}
	return Finding{Name: name, Status: OK, Detail: "the settings match those of its counters"}
}
