package dashboard

import (
	"strings"

	"github.com/afterwrite/afterwrite/internal/pulse"
)

// refusals are what the words mean by which Redis refuses writes, and what to do then.
var refusals = map[string]struct{ why, advice string }{
	"MISCONF": {
		"it cannot save its data",
		"Its disk is full or fails, or it has not the memory to fork: its own log says which (MISCONF). When a save succeeds it takes " +
			"writes again by itself. Do not restart it before that: what it has not saved would be lost.",
	},
	"READONLY": {
		"it is a replica",
		"Find out which node is the master, and let REDIS_URL lead there (READONLY). With Sentinel, or on a cluster, that happens by " +
			"itself in some seconds. What only this node has is lost when it syncs with another: keep it until you know.",
	},
	"NOREPLICAS": {
		"it has too few replicas",
		"Bring its replicas back, or lower its min-replicas-to-write (NOREPLICAS).",
	},
}

// denials are what the words mean by which Redis refuses to serve us at all, and what to do then.
var denials = map[string]struct{ what, advice string }{
	"LOADING": {
		"Redis is loading its data",
		"Writes are refused until it has. Wait: it reads some hundred megabytes a second, and its own log says how far it is.",
	},
	"CLUSTERDOWN": {
		"The cluster of Redis is down",
		"Writes are refused until it is up. Some slots have no master, and then it serves none of them unless " +
			"cluster-require-full-coverage is no: `redis-cli cluster nodes` says which. Start that master, or let a replica take over.",
	},
	"MASTERDOWN": {
		"Redis is a replica that has lost its master",
		"Find out which node is the master, and let REDIS_URL lead there (MASTERDOWN).",
	},
	"NOAUTH":    {"Redis wants a password", "Put it into REDIS_URL, here and for every process that lacks it (NOAUTH)."},
	"WRONGPASS": {"Redis does not take our password", "Mend the user and the password in REDIS_URL, everywhere (WRONGPASS)."},
	"NOPERM": {
		"Redis does not permit us what we need",
		"Its ACL lacks commands or keys for the user of REDIS_URL (NOPERM): `redis-cli acl log` says which.",
	},
}

// unserved says for how long Redis has not answered, or refused to serve, and why.
func unserved(c condition) finding {
	const before = " The numbers below are from before."
	if known, ok := denials[c.Denial]; ok {
		return finding{levelBad, known.what + ", and has not served us for " + age(c.Failed) + ".", known.advice + before}
	}
	return finding{
		levelBad, "Redis has not answered for " + age(c.Failed) + ".",
		"Writes are refused until it answers. Check that it runs and that the network lets us through; " +
			"`afterwrite doctor` says more." + before,
	}
}

// redis is what Redis is called where not all of a cluster need be meant.
func (c condition) redis() string {
	if c.Redis.Nodes > 1 {
		return "A node of Redis"
	}
	return "Redis"
}

// withheld says what Redis does not do, for all writes or some: shards that do not answer, and writes that it refuses. Beats are
// writes too, so this comes before all that they would tell.
func withheld(c condition, f fleet) []finding {
	var found []finding
	if c.Away > 0 {
		found = append(found, finding{
			levelBad, count(c.Away, "shard does", "shards do") + " not answer.",
			"A node of Redis is away: writes to its counters are answered 503 or 504, and what they have unsynced waits there. " +
				"Check that it runs, or let a replica of it take over; `redis-cli cluster nodes` says who is who. " +
				"The numbers below are without it.",
		})
	}
	if c.Refusal != "" {
		found = append(found, refused(c, f))
	}
	if c.Away == 0 && c.Redis.Nodes < 2 {
		return append(found, besides(f)...)
	}
	others := flow(c, f)
	others.Title = strings.Replace(others.Title, "Keeping up", "The other shards keep up", 1)
	return append(found, others)
}

// refused says that Redis refuses writes, and why.
func refused(c condition, f fleet) finding {
	known := refusals[c.Refusal]
	title, advice := c.redis()+" refuses writes, since "+known.why, "Writes are answered 503. "+known.advice
	if c.Redis.Nodes > 1 {
		advice = "Writes to its counters are answered 503. " + known.advice
	}
	if len(f.Alive) == 0 {
		advice += " Which processes run is not known: they say so by writing."
	}
	return finding{levelBad, title + "; " + count(c.Dirty, "key is waiting", "keys are waiting") + ".", advice}
}

// besides is what is known of Postgres while nothing can be written: what workers said last.
func besides(f fleet) []finding {
	if f.Up+f.LastUp > 0 || f.Down+f.LastDown == 0 {
		return nil
	}
	return []finding{{levelWarn, "Postgres was down too when workers said so last.", "See to it as well: it is what keys wait for next."}}
}

// last takes what a process that is silent said before.
func (f *fleet) last(p pulse.Pulse) {
	switch {
	case p.Role != pulse.RoleWorker:
	case p.Postgres == pulse.PostgresDown:
		f.LastDown++
	default:
		f.LastUp++
	}
}
