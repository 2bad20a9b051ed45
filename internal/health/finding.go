package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/tasks"
)

// Level is how serious a finding is. Pages use it as the name of a style.
type Level string

// The levels.
const (
	Good Level = "good"
	Warn Level = "warn" // look after it soon
	Bad  Level = "bad"  // writes do not reach Postgres, are refused, or may be lost
)

// Verdict answers whether Postgres keeps up.
type Verdict string

// The verdicts. From one to the next they weigh more.
const (
	KeepsUp Verdict = "yes"
	Unknown Verdict = "unknown" // Redis, or who runs, could not be asked
	Behind  Verdict = "no"
)

// Finding is one thing that holds, and what to do about it.
type Finding struct {
	Code     string // stable: postgres_down
	Level    Level
	Sentence string
	Advice   string // "" if there is nothing to do; commands are between backquotes

	verdict Verdict // "": says nothing about keeping up
}

// Report is the judgement of a Snapshot: the most important finding, and the others in order of importance.
type Report struct {
	Finding

	Also []Finding
}

// Findings returns all findings, the most important first.
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

// News is the sentence for the title of a tab and for screen readers: the first one, or if that only says that Postgres keeps up
// while there are warnings, the first warning.
func (r Report) News() string {
	if r.Code == codeKeepsUp && r.Level == Warn && len(r.Also) > 0 {
		return r.Also[0].Sentence
	}
	return r.Sentence
}

// Judge applies the rules. The first finding is an outage of Redis, else whatever is bad, else how Postgres keeps up.
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

// conclude puts how Postgres keeps up first, unless another finding is worse. It is not good while there are others.
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

// facts are what rules look at.
type facts struct {
	Snapshot
	Fleet
}

// partial reports whether an outage of Redis is one of a part of a cluster only.
func (x *facts) partial() bool { return x.Away > 0 || x.Redis.Nodes > 1 }

func (x *facts) late() bool { return Milliseconds(x.Oldest) > x.Late() }

func (x *facts) paused(queue string) bool { return slices.Contains(x.Paused, queue) }

// refused is how many keys wait for a retry because Postgres refused them. Redis does not know the reason, but workers count each
// deferral, and in the window each deferred key was counted at least once.
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
		unheard = " Which processes run is not known: they say so by writing."
	}
	return strings.NewReplacer(
		"{redis}", redis, "{answer}", writes, "{unheard}", unheard,
		"{failed}", Age(x.Failed), "{full}", fmt.Sprintf("%.0f%%", 100*x.Redis.Full()), "{policy}", x.Redis.Policy,
		"{away}", Count(x.Away, "shard does", "shards do"),
		"{failing}", Rate(x.Failing()),
		"{keeping}", keeping, "{waiting}", Count(x.Dirty, "key is waiting", "keys are waiting"),
		"{oldest}", Age(Milliseconds(x.Oldest)), "{left}", Age(x.left()), "{room}", x.room(), "{outage}", x.outage(),
		"{down}", Number(int64(x.Down)), "{workers}", Number(int64(x.Up+x.Down)),
		"{letters}", Count(x.Dead, "dead letter", "dead letters"),
		"{letters need}", Count(x.Dead, "dead letter needs", "dead letters need"),
		"{deferred}", Count(x.Deferred, "was", "were"), "{window}", Number(DeferredWindow),
		"{refused}", Count(x.refused(), "key waits", "keys wait"),
		"{swept}", Age(x.Swept), "{scheduled}", Age(x.Scheduled), "{sweep interval}", Age(x.SweepInterval),
		"{resume flush}", resume(x.Prefix+tasks.QueueFlush), "{resume retry}", resume(x.Prefix+tasks.QueueRetry),
		"{resume sweep}", resume(x.Prefix+tasks.QueueSweep),
	)
}

// resume says how to resume a queue. Asynq marks a paused queue with a key, and with nothing else.
func resume(queue string) string {
	return "Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with `redis-cli DEL '" +
		tasks.PausedKey(queue) + "'`."
}

// outage says for how long Postgres has been down, and what waits. Workers know only what they have seen since they started. If
// none can have seen the beginning, or if keys waited before it, it is at least that long.
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

// room says how many more keys can become dirty before writes are refused.
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
