package dashboard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/tasks"
)

// The levels of findings, and the classes that show them.
const (
	levelGood = "good"
	levelWarn = "warn"
	levelBad  = "bad"
)

// lateAfter is how far behind Postgres may be, beyond the flush interval, before we say that it does not keep up.
const lateAfter = 10 * time.Second

// finding is one thing that is so, and what to do about it.
type finding struct {
	Level  string
	Title  string
	Advice string
}

// state is what the page says first: the most important finding, and what else there is.
type state struct {
	finding

	Also []finding
}

// judge says in one sentence how things are. The order of its findings is that of their weight: what comes first explains
// much of what follows.
func judge(c condition) state {
	switch {
	case c.Failed > 0:
		return state{finding: unserved(c)}
	case c.Starting:
		return state{finding: finding{levelWarn, "Starting: the first sample is on its way.", "This takes a second or two."}}
	}
	f := c.fleet()
	if c.Refusal != "" || c.Away > 0 {
		found := slices.Concat(withheld(c, f), troubles(c, f), pauses(c, f), concerns(c, f))
		return state{finding: found[0], Also: found[1:]}
	}
	return conclude(flow(c, f), slices.Concat(troubles(c, f), pauses(c, f), concerns(c, f)))
}

// conclude puts how Postgres keeps up first, unless something is worse than that. It is not green while anything else is
// to be looked after.
func conclude(flow finding, others []finding) state {
	if flow.Level != levelBad {
		for i, f := range others {
			if f.Level == levelBad {
				return state{finding: f, Also: append([]finding{flow}, slices.Delete(others, i, i+1)...)}
			}
		}
	}
	if flow.Level == levelGood && len(others) > 0 {
		flow.Level = levelWarn
	}
	return state{finding: flow, Also: others}
}

// flow says whether what is written reaches Postgres.
func flow(c condition, f fleet) finding {
	waiting := count(c.Dirty, "key is waiting", "keys are waiting")
	trend := c.trend()
	switch {
	case f.Alive[pulse.RoleWorker] == 0 && c.unheard():
		why := "They say so by writing to Redis, which did not take that until just now."
		switch {
		case c.Unread:
			why = "They say so in Redis, on a node that does not answer."
		case c.Refusal != "":
			why = "" // what says that Redis refuses writes says this too
		}
		return finding{levelWarn, "Which workers run is not known; " + waiting + ".", why}
	case f.Alive[pulse.RoleWorker] == 0:
		return finding{
			levelBad, "Workers are not running; " + waiting + ".",
			"Writes are safe in Redis." + room(c, f, trend) + " Start `afterwrite worker`; if one ends at once, its log says why.",
		}
	case f.Up == 0:
		return finding{
			levelBad, c.outage(f, waiting), "Writes are safe in Redis, and go to Postgres by themselves when it is back." +
				room(c, f, trend) + " Start Postgres, or see in the log of a worker why it refuses.",
		}
	case c.paused(tasks.QueueFlush):
		return flushesPaused(waiting, room(c, f, trend))
	case c.late(f):
		return behind(c, f, waiting)
	case f.Down > 0:
		return partly(f)
	case c.Dirty == 0 && c.Dead > 0:
		return finding{levelWarn, "Keeping up: Postgres has everything but " + count(c.Dead, "dead letter", "dead letters") + ".", ""}
	case c.Dirty == 0:
		return finding{levelGood, "Keeping up: Postgres has everything.", ""}
	default:
		return finding{levelGood, "Keeping up: " + age(duration(c.Oldest)) + " behind.", ""}
	}
}

// endings is how many workers may have been killed in ten minutes before those that have just begun are no news.
const endings = 2

// behind says how it goes where Postgres is late.
func behind(c condition, f fleet, waiting string) finding {
	trend := c.trend()
	switch {
	case c.Back:
		return finding{
			levelWarn, "Redis is back; " + waiting + ".",
			"It was away or refused writes, and so they are late. Whether workers catch up shows in some seconds.",
		}
	case f.Flushing < trendWindow && f.LastUp+f.LastDown <= endings:
		return finding{
			levelWarn, "Workers have just begun to flush; " + waiting + ".",
			"They were started, or reach Postgres again. Whether they catch up shows in some seconds.",
		}
	case c.catchingUp(f):
		return finding{
			levelWarn, "Catching up: " + waiting + ", about " + age(c.left(trend)) + " to go.",
			"Postgres takes more than is written. There is nothing to do.",
		}
	default:
		return finding{
			levelBad, "Falling behind: " + age(duration(c.Oldest)) + ", " + waiting + ".",
			"Writes are safe in Redis." + room(c, f, trend) + " Is Postgres slow (locks, disk, CPU)? " +
				"If it is not, start more workers or raise AFTERWRITE_WORKER_CONCURRENCY.",
		}
	}
}

// outage says for how long Postgres has been down. Workers know only what they have seen since they started: where one
// cannot have seen the beginning, or what waits is older than the outage, it has taken that long at least.
func (c condition) outage(f fleet, waiting string) string {
	since, oldest := age(f.PostgresFor), ""
	older := duration(c.Oldest) > f.PostgresFor+f.FlushInterval+lateAfter
	if older {
		oldest = ", the oldest for " + age(duration(c.Oldest))
	}
	if older || !f.Turned {
		since = "at least " + since
	}
	return "Postgres has been down for " + since + "; " + waiting + oldest + "."
}

// late says whether Postgres is further behind than flushes explain.
func (c condition) late(f fleet) bool { return duration(c.Oldest) > f.FlushInterval+lateAfter }

// soon is how long a backlog may take at most if we are to say that it is being caught up with.
const soon = time.Hour

// catchingUp says whether the backlog becomes less, fast enough and steadily, and what is late with it: a backlog also shrinks
// where most keys are flushed and some are stuck.
func (c condition) catchingUp(f fleet) bool {
	trend := c.trend()
	return trend < 0 && c.left(trend) < soon && c.shrinks() && c.moves(f)
}

// moves says whether what is late is worked off: in a shard at least the oldest late key has been flushed within the window. The
// oldest of all says nothing of that. Workers empty one shard after the other, so it grows older until they come to its own.
func (c condition) moves(f fleet) bool {
	const stuck = time.Second // within that it is the same key, by the clocks of a cluster
	passed := duration(c.At - c.Then.At)
	for i, then := range c.Then.Shards {
		if then.Oldest > f.FlushInterval+lateAfter && i < len(c.Shards) && !c.Shards[i].Unknown &&
			c.Shards[i].Oldest < then.Oldest+passed-stuck {
			return true
		}
	}
	return false
}

// left is how long the backlog takes at the given trend, which is below 0.
func (c condition) left(trend float64) time.Duration {
	return time.Duration(min(float64(c.Dirty)/-trend, 1e9) * float64(time.Second))
}

// partly is that some workers do not reach Postgres.
func partly(f fleet) finding {
	return finding{
		levelWarn, fmt.Sprintf("%d of %d workers cannot reach Postgres.", f.Down, f.Up+f.Down),
		"The others do the work. Look at the network of those that are marked below, and at Postgres's max_connections.",
	}
}

// room says how long writes can go on.
func room(c condition, f fleet, trend float64) string {
	if f.MaxDirty == 0 {
		return ""
	}
	left := max(0, f.MaxDirty-c.Dirty-c.Dead)
	text := " There is room for " + number(left) + " more keys"
	if trend > 0 {
		text += ", about " + age(time.Duration(float64(left)/trend*float64(time.Second))) + " at the present rate"
	}
	return text + "; after that new keys are refused."
}

// troubles are what can lose or refuse writes: first what makes requests fail, then that they do.
func troubles(c condition, f fleet) []finding {
	var found []finding
	add := func(ok bool, level, title, advice string) {
		if ok {
			found = append(found, finding{level, title, advice})
		}
	}
	full, redis := c.Redis.Full(), c.redis()
	add(full >= 0.9 && c.Redis.Policy == "noeviction", levelBad, fmt.Sprintf("%s is %.0f%% full.", redis, 100*full),
		"A full Redis refuses writes, until clean entries expire. Raise maxmemory, or lower AFTERWRITE_CLEAN_TTL.")
	add(c.Redis.AOFFailing, levelBad, redis+" cannot write its append-only file.",
		"What it holds would be lost with it. Look for a full disk, and at Redis's own log.")
	add(c.Redis.Role == "slave" && !c.unheard(), levelBad, "Redis is a replica that takes writes.",
		"What is written to it is lost when it syncs with its master again. Let REDIS_URL lead to the master.")
	rejected := c.rejected()
	add(rejected > 0, rejectedLevel(rejected), "Requests fail: "+rate(rejected)+" a second.",
		"They are answered 503, 504 or 500. None with 503 was applied, unless it says not_durable; "+
			"of those with 504 or 500 some may have been. The reasons are in afterwrite_rejected_total of each api.")
	add(strings.HasPrefix(c.Redis.Policy, "allkeys-"), levelBad, redis+" may throw away counters that Postgres does not have yet.",
		"Its maxmemory-policy is "+c.Redis.Policy+", which takes any entry when memory runs out. Set maxmemory-policy noeviction.")
	add(c.Redis.Known && !c.Redis.AOF, levelWarn, redis+" keeps no append-only file.",
		"Writes that Postgres does not have yet are lost if Redis ends. Set appendonly yes.")
	add(f.Alive[pulse.RoleAPI] == 0 && !c.unheard(), levelBad, "No api is running.", "Nobody can write. Start `afterwrite api`.")
	return found
}

// rejectedLevel judges how many requests fail each second: one in ten seconds is not yet a failure of the system.
func rejectedLevel(perSecond float64) string {
	switch {
	case perSecond >= 1:
		return levelBad
	case perSecond > 0:
		return levelWarn
	default:
		return levelGood
	}
}

// concerns are what somebody should look after, soon.
func concerns(c condition, f fleet) []finding {
	var found []finding
	add := func(ok bool, title, advice string) {
		if ok {
			found = append(found, finding{levelWarn, title, advice})
		}
	}
	if f.Up > 0 && f.Down > 0 && c.late(f) { // else flow says it
		found = append(found, partly(f))
	}
	add(c.Dead > 0, count(c.Dead, "dead letter needs", "dead letters need")+" somebody.",
		"Postgres refuses their rows for good; every other counter goes on. See the page Dead letters, "+
			"mend the cause, then redrive or discard them.")
	found = append(found, aside(c)...)
	schedulers := f.Alive[pulse.RoleScheduler]
	add(schedulers == 0 && !c.unheard(), "No scheduler is running.",
		"Keys whose task was lost are found later, by the workers themselves. Start `afterwrite scheduler`.")
	swept := "The last sweep was sent " + age(f.Swept) + " ago."
	if f.Swept < 0 {
		swept = "No sweep has been sent since the scheduler started, " + age(f.Scheduled) + " ago."
	}
	add(schedulers > 0 && f.unswept(), swept,
		"There should be one every "+age(f.SweepInterval)+". The log of the scheduler says why there is none.")
	return found
}
