package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// durabilityCheck begins the name of the check of AFTERWRITE_DURABILITY. It does not begin with redis: only the api needs it to be fit.
const durabilityCheck = "durability"

// safety is what decides which acknowledged writes a failure of Redis can lose, as long as Postgres does not have them.
type safety struct {
	durability   string // AFTERWRITE_DURABILITY
	waitReplicas int64

	fsync       string // appendfsync; "off": no append-only file; "unknown"
	disk        bool   // the server can confirm that a write is on disk
	replicas    int64  // connected
	minReplicas int64  // min-replicas-to-write; 0: none
	maxLag      int64  // min-replicas-max-lag, seconds
	failover    string // what promotes replicas: "Sentinel", "Cluster", or ""
}

// checkDurability says what a failure of a server can lose.
func (c Checks) checkDurability(ctx context.Context, node redis.Cmdable, info *cache.Info, server string) Finding {
	name := durabilityCheck + strings.TrimPrefix(server, "redis")
	if !info.AOFKnown {
		return unchecked(name, errors.New("INFO does not have aof_enabled"))
	}
	s := safety{
		durability: c.Durability, waitReplicas: int64(c.WaitReplicas), replicas: info.Replicas, fsync: "off", failover: c.Failover,
	}
	settings := readSettings(ctx, node)
	if info.AOF {
		s.fsync = "unknown"
		if fsync := settings["appendfsync"]; fsync != "" {
			s.fsync = fsync
		}
	}
	// Since Redis 5 these are the names. A server that hides them counts as one without.
	s.minReplicas, _ = strconv.ParseInt(settings["min-replicas-to-write"], 10, 64)
	s.maxLag, _ = strconv.ParseInt(settings["min-replicas-max-lag"], 10, 64)
	if s.maxLag == 0 {
		s.minReplicas = 0 // Redis does not check it then
	}
	if s.durability == "disk" {
		var err error
		if s.disk, err = cache.ConfirmsDisk(ctx, node); err != nil {
			return unchecked(name, err)
		}
	}
	f := s.finding()
	f.Name = name
	return f
}

// readSettings reads the settings that matter. Those that the server hides are missing.
func readSettings(ctx context.Context, node redis.Cmdable) map[string]string {
	settings := make(map[string]string)
	for _, pattern := range []string{"appendfsync", "min-replicas-*"} {
		values, err := node.ConfigGet(ctx, pattern).Result()
		if err != nil {
			continue
		}
		maps.Copy(settings, values)
	}
	return settings
}

// finding returns the sentence, and a fix for settings under which no write can be answered.
func (s *safety) finding() Finding {
	f := Finding{Status: OK}
	var what string
	switch {
	case s.durability == "disk" && !s.disk:
		f.Status, what = Refused, "Redis cannot confirm that a write is on its disk, so no write would be accepted"
		f.Fix = "set appendonly yes and appendfsync always in redis.conf, or use Redis 7.2 with appendonly yes, or set " +
			"AFTERWRITE_DURABILITY=memory"
	case s.durability == "replica" && s.replicas < s.waitReplicas:
		f.Status, what = Warning, "writes get 503 not_durable until Redis has "+count(s.waitReplicas, "replica")
		f.Fix = "start the replicas, or set AFTERWRITE_WAIT_REPLICAS to their number, or AFTERWRITE_DURABILITY=memory"
	case s.durability == "replica":
		what = s.lossWithReplicas()
		if s.waitReplicas < s.replicas {
			f.Fix = fmt.Sprintf("AFTERWRITE_WAIT_REPLICAS=%d, so that each replica has every acknowledged write", s.replicas)
		}
		if s.fsync == "off" { // the primary comes back empty, and its replicas copy that
			f.Status, f.Fix = Warning, "set appendonly yes in redis.conf"
		}
	case s.durability == "disk":
		what = "a crash of the Redis machine loses no acknowledged write"
		if s.replicas > 0 {
			what += ", but " + s.failoverLoss()
		}
	default:
		what = s.crashLoss("the Redis machine")
		if s.replicas > 0 {
			what += ", and " + s.failoverLoss()
		}
	}
	f.Detail = what + ": " + s.settings()
	return f
}

// lossWithReplicas is for durability=replica with enough replicas.
func (s *safety) lossWithReplicas() string {
	what := "a failover loses no acknowledged write"
	if s.waitReplicas < s.replicas {
		what = "a failover can lose acknowledged writes if it promotes a replica that did not confirm them"
	}
	if s.fsync == "off" {
		what += ", but a restart of the primary before a failover loses all that Postgres does not have yet, on its replicas too"
	} else {
		what += ", and " + s.crashLoss("all Redis machines at once")
	}
	if s.minReplicas == 0 {
		what += "; a primary that is cut off from its replicas still takes writes, but cannot acknowledge them"
	}
	return what
}

// crashLoss is what the append-only file does not save.
func (s *safety) crashLoss(machines string) string {
	switch s.fsync {
	case "off":
		return "a crash or restart of " + machines + " loses all acknowledged writes that Postgres does not have yet"
	case "always":
		return "a crash of " + machines + " loses no acknowledged write, unless its disk is lost"
	case "no":
		return "a crash of " + machines + " can lose up to about 30 s of acknowledged writes"
	case "everysec":
		return "a crash of " + machines + " can lose up to about 1 s of acknowledged writes"
	default:
		return "a crash of " + machines + " can lose acknowledged writes"
	}
}

// failoverLoss is what a promoted replica may lack.
func (s *safety) failoverLoss() string {
	if s.minReplicas == 0 {
		return "a failover can lose those that its new primary had not received; without min-replicas-to-write there is no bound, " +
			"since a primary that is cut off from its replicas still acknowledges writes"
	}
	return fmt.Sprintf("a failover can lose up to about %d s of those that its new primary had not received", s.maxLag)
}

// settings lists the settings that the sentence depends on.
func (s *safety) settings() string {
	fsync := "appendfsync " + s.fsync
	if s.fsync == "off" {
		fsync = "no append-only file"
	}
	list := []string{fsync, count(s.replicas, "replica")}
	if s.replicas > 0 {
		bound := "min-replicas-to-write " + strconv.FormatInt(s.minReplicas, 10)
		if s.minReplicas > 0 {
			bound += fmt.Sprintf(" with min-replicas-max-lag %d", s.maxLag)
		}
		list = append(list, bound)
	}
	if s.failover != "" {
		list = append(list, s.failover)
	}
	return strings.Join(append(list, "durability "+s.durability), ", ")
}

// count returns "no replica", "1 replica" or "2 replicas".
func count(n int64, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	default:
		return strconv.FormatInt(n, 10) + " " + what + "s"
	}
}

// failoverOf returns what promotes the replicas of a Redis, by its URL.
func failoverOf(redisURL string) string {
	scheme, _, _ := strings.Cut(redisURL, "://")
	switch {
	case strings.HasSuffix(scheme, "-sentinel"):
		return "Sentinel"
	case strings.HasSuffix(scheme, "-cluster"):
		return "Cluster"
	default:
		return ""
	}
}
