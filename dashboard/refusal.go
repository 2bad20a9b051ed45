package dashboard

import "github.com/afterwrite/afterwrite/internal/pulse"

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

// refused says that Redis refuses writes, and why. Beats are writes too: it comes before all that they would tell.
func refused(c condition, f fleet) finding {
	known := refusals[c.Refusal]
	title, advice := "Redis refuses writes, since "+known.why, "Writes are answered 503. "+known.advice
	if len(f.Alive) == 0 {
		advice += " Which processes run is not known: they say so by writing."
	}
	return finding{levelBad, title + "; " + count(c.Dirty, "key is waiting", "keys are waiting") + ".", advice}
}

// besides is what is known of Postgres while Redis refuses writes: what workers said last.
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
