package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/tasks"
)

// Level is the severity of a finding. Pages use it as a CSS class.
type Level string

// The levels.
const (
	Good Level = "good"
	Warn Level = "warn" // needs attention soon
	Bad  Level = "bad"  // writes do not reach Postgres, are refused, or may be lost
)

// Verdict answers whether Postgres keeps up.
type Verdict string

// The verdicts, in ascending precedence.
const (
	KeepsUp Verdict = "yes"
	Unknown Verdict = "unknown" // Redis does not answer, or the heartbeats cannot be read
	Behind  Verdict = "no"
)

// Finding is one observation, with advice.
type Finding struct {
	Code     string // stable: postgres_down
	Level    Level
	Sentence string
	Advice   string // "" if there is nothing to do; commands are in backquotes

	verdict Verdict // "": does not concern keeping up
}

// Report is the judgement of a Snapshot: the most important finding, and the others by importance.
type Report struct {
	Finding

	Also []Finding
}

// Findings returns all findings, most important first.
func (r Report) Findings() []Finding { return append([]Finding{r.Finding}, r.Also...) }

// Verdict answers whether Postgres keeps up.
func (r Report) Verdict() Verdict {
	verdict := KeepsUp
	for _, f := range r.Findings() {
		if f.verdict == Behind || f.verdict == Unknown && verdict == KeepsUp {
			verdict = f.verdict
		}
	}
	return verdict
}

// News returns the sentence for the tab's title and for screen readers: that of the first finding or, if Postgres keeps up but there are
// warnings, that of the first warning.
func (r Report) News() string {
	if r.Code == codeKeepsUp && r.Level == Warn && len(r.Also) > 0 {
		return r.Also[0].Sentence
	}
	return r.Sentence
}

// Judge applies the rules. The first finding is an outage of Redis, else a bad finding, else whether Postgres keeps up.
func (s Snapshot) Judge() Report {
	x := &facts{Snapshot: s, Fleet: s.Fleet()}
	texts := x.texts()
	found := make(map[group][]Finding)
	for _, r := range rules {
		if r.group == flow && len(found[flow]) > 0 || !r.when(x) {
			continue
		}
		f := Finding{r.code, r.level, texts.Replace(r.sentence), texts.Replace(r.advice), r.verdict}
		if r.group == alone {
			return Report{Finding: f}
		}
		found[r.group] = append(found[r.group], f)
	}
	if first := found[outage]; len(first) > 0 {
		if x.partial() {
			first = append(first, found[flow]...)
		}
		return Report{Finding: first[0], Also: append(first[1:], found[other]...)}
	}
	return conclude(found[flow][0], found[other])
}

// conclude puts first (whether Postgres keeps up) before the others, unless one of those is worse. If there are others, a good first
// becomes a warning.
func conclude(first Finding, others []Finding) Report {
	if first.Level != Bad {
		bad := slices.IndexFunc(others, func(f Finding) bool { return f.Level == Bad })
		if bad >= 0 {
			worst := others[bad]
			return Report{Finding: worst, Also: append([]Finding{first}, slices.Delete(others, bad, bad+1)...)}
		}
	}
	if first.Level == Good && len(others) > 0 {
		first.Level = Warn
	}
	return Report{Finding: first, Also: others}
}

// facts are the input of rules.
type facts struct {
	Snapshot
	Fleet
}

// partial reports whether an outage of Redis may concern only a part of a cluster.
func (x *facts) partial() bool { return x.Away > 0 || x.Redis.Nodes > 1 }

func (x *facts) late() bool { return Milliseconds(x.Oldest) > x.Late() }

func (x *facts) paused(queue string) bool { return slices.Contains(x.Paused, queue) }

// pausedFlush returns a paused queue of flushes, without the prefix; "" if none is. A cluster has several.
func (s Snapshot) pausedFlush() string {
	for _, queue := range s.Paused {
		if strings.HasPrefix(queue, tasks.QueueFlush) {
			return queue
		}
	}
	return ""
}

// refused returns the number of keys that wait for a retry because Postgres refused them. Redis does not store the reason, but workers
// counted each deferred key at least once in deferredWindow.
func (x *facts) refused() int64 { return x.Retrying - x.Deferred }

// texts replaces the {names} in the sentences and advice of rules.
func (x *facts) texts() *strings.Replacer {
	redis, writes, keeping := "Redis", "Writes are answered 503.", "Keeping up"
	if x.Redis.Nodes > 1 {
		redis, writes = "A node of Redis", "Writes to its counters are answered 503."
	}
	if x.Refusal != "" || x.Away > 0 {
		keeping = "The other shards keep up"
	}
	unheard := ""
	if len(x.Alive) == 0 {
		unheard = " Which processes run is not known: they report by writing to Redis."
	}
	return strings.NewReplacer(
		"{redis}", redis, "{answer}", writes, "{unheard}", unheard,
		"{failed}", Age(x.Failed), "{promoted}", Age(x.Promoted),
		"{full}", fmt.Sprintf("%.0f%%", 100*x.Redis.Full()), "{policy}", x.Redis.Policy,
		"{away}", Count(x.Away, "shard does", "shards do"),
		"{failing}", Rate(x.Failing()),
		"{keeping}", keeping, "{waiting}", Count(x.Dirty, "key is waiting", "keys are waiting"),
		"{oldest}", Age(Milliseconds(x.Oldest)), "{left}", Age(x.left()), "{room}", x.room(), "{outage}", x.outage(),
		"{down}", Number(int64(x.Down)), "{workers}", Number(int64(x.Up+x.Down)),
		"{letters}", Count(x.Dead, "dead letter", "dead letters"),
		"{letters need}", Count(x.Dead, "dead letter needs", "dead letters need"),
		"{deferred}", Count(x.Deferred, "was", "were"), "{window}", Number(deferredWindow),
		"{broken}", Count(int64(len(x.BrokenMappings())), "mapping is", "mappings are"), "{broken names}", x.brokenNames(),
		"{differing}", x.describe(mappingsSetting), "{differing histories}", x.describe(historySetting),
		"{refused}", Count(x.refused(), "key waits", "keys wait"),
		"{swept}", Age(x.Swept), "{scheduled}", Age(x.Scheduled), "{sweep interval}", Age(x.SweepInterval),
		"{flush queue}", x.pausedFlush(), "{resume flush}", resume(x.Prefix+x.pausedFlush()),
		"{resume retry}", resume(x.Prefix+tasks.QueueRetry),
		"{resume sweep}", resume(x.Prefix+tasks.QueueSweep),
	)
}

// resume explains how to resume a queue. The only mark of a paused queue in Asynq is a key.
func resume(queue string) string {
	return "Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with `redis-cli DEL '" +
		tasks.PausedKey(queue) + "'`."
}

// outage describes how long Postgres has been down, and the waiting keys. Workers report only what they have observed since they started.
// If all of them started later than the outage, or if keys waited before it, the duration is a lower bound.
func (x *facts) outage() string {
	since, oldest := Age(x.PostgresFor), ""
	older := Milliseconds(x.Oldest) > x.PostgresFor+x.Late()
	if older {
		oldest = ", the oldest for " + Age(Milliseconds(x.Oldest))
	}
	if older || !x.Turned {
		since = "at least " + since
	}
	return since + "; " + Count(x.Dirty, "key is waiting", "keys are waiting") + oldest
}

// room describes how many more keys can become dirty before writes are refused.
func (x *facts) room() string {
	if x.MaxDirty == 0 {
		return ""
	}
	left := max(0, x.MaxDirty-x.Dirty-x.Dead)
	text := " There is room for " + Number(left) + " more keys"
	if trend := x.trend(); trend > 0 {
		text += ", about " + Age(time.Duration(float64(left)/trend*float64(time.Second))) + " at the present rate"
	}
	return text + "; after that, writes to new keys are refused."
}
