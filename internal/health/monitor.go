package health

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

const (
	// SampleEvery is the time between two calls of Monitor.Next that samples and trends are made for.
	SampleEvery = time.Second

	// sampleTimeout bounds one sample. A Redis that takes longer counts as one that does not answer.
	sampleTimeout = 2 * time.Second

	// lossAllowed is for how long heartbeats may be lost before processes that run may seem to be gone.
	lossAllowed = time.Second

	// clockJump is a difference between the progress of Redis's clock and ours that means that a clock was set.
	clockJump = 3 * time.Second

	// heardWithin is the time within which each process has sent a heartbeat after Redis accepts them again.
	heardWithin = 6 * time.Second
)

// Monitor takes samples, and remembers what a judgement needs: earlier samples, and when Redis failed. Only one goroutine may use it.
type Monitor struct {
	sampler *sampler
	redis   redis.UniversalClient
	log     *slog.Logger

	last       Snapshot
	history    []Sample
	shards     []ShardsAt // of the trend's window, the oldest first
	loaded     bool       // history has the samples of earlier processes
	failing    time.Time  // since when; zero: the last sample succeeded
	unrecorded bool       // the last sample could not be recorded
	taken      time.Time  // when the last sample was taken
	losing     time.Time  // since when heartbeats have been lost; zero: they are not
	lost       time.Time  // when they were lost last, for long enough that processes may seem to be gone
	short      time.Time  // when Redis last did not answer, refused writes, or lacked shards
	partOnce   bool       // the last sample was the first with a part missing
}

// NewMonitor returns a Monitor. The client is the one of the cache, and stays the caller's to close.
func NewMonitor(c *cache.Cache, client redis.UniversalClient, log *slog.Logger) *Monitor {
	return &Monitor{sampler: newSampler(c, client), redis: client, log: log, last: Snapshot{Starting: true}}
}

// Next takes a sample, records it in Redis, and returns what is known now. It blocks for at most 2 s. ok is false if there is nothing
// new: ctx is done, or a node of a cluster was late once. A Redis that does not answer is not an error, but a Snapshot that says so.
func (m *Monitor) Next(ctx context.Context) (s Snapshot, ok bool) {
	bounded, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	taken, err := m.sampler.take(bounded)
	switch {
	case ctx.Err() != nil:
		return m.last, false
	case err != nil:
		m.fail(err, time.Now())
		return m.last, true
	case m.lateOnce(taken):
		return m.last, false
	}
	if !m.failing.IsZero() {
		m.log.Info("samples are taken again")
		m.failing = time.Time{}
	}
	m.record(bounded, &taken)
	now := time.Now()
	taken.Missed = m.missed(taken, now)
	taken.Back = m.back(taken, now)
	m.keep(&taken)
	m.last = taken
	return taken, true
}

// fail notes that Redis does not serve. All else stays as it was.
func (m *Monitor) fail(err error, now time.Time) {
	if m.failing.IsZero() {
		m.failing = now
		m.log.Warn("no samples can be taken; trying again each second", "error", err)
	}
	m.last.Starting, m.last.Denial = false, cache.Denial(err)
	m.last.Failed = max(now.Sub(m.failing), time.Millisecond)
	m.lose(now)
}

// record stores the sample in Redis, after it has loaded the history from before this process. It also finds out whether Redis
// refuses writes.
func (m *Monitor) record(ctx context.Context, taken *Snapshot) {
	if !m.loaded {
		m.load(ctx, taken.Prefix, taken.At)
	}
	_, err := record(ctx, m.redis, taken.Prefix, taken.Sample)
	if err != nil && !m.unrecorded {
		m.log.Warn("samples cannot be recorded, so a process that starts later will not show them", "error", err)
	}
	m.unrecorded = err != nil
	taken.Refusal = cmp.Or(taken.Refusal, cache.Refusal(err))
}

// load reads the history from before this process. If the node of a cluster that has it does not answer, the next sample tries again.
func (m *Monitor) load(ctx context.Context, prefix string, now int64) {
	before, err := readHistory(ctx, m.redis, prefix, now)
	if err != nil {
		return
	}
	m.loaded = true
	if len(m.history) > 0 {
		before = slices.DeleteFunc(before, func(s Sample) bool { return s.At >= m.history[0].At })
	}
	m.history = append(before, m.history...)
}

// lose notes that heartbeats are lost now.
func (m *Monitor) lose(now time.Time) {
	if m.losing.IsZero() {
		m.losing = now
	}
	if now.Sub(m.losing) >= lossAllowed {
		m.lost, m.short = now, now
	}
}

// missed reports whether so many heartbeats were lost lately that running processes may seem to be gone. They may as well if Redis's
// clock, which tells the age of heartbeats, has jumped since the last sample: another node with another clock may be the master now.
func (m *Monitor) missed(taken Snapshot, now time.Time) bool {
	if taken.Refusal != "" || taken.Unread {
		m.lose(now)
	} else {
		m.losing = time.Time{}
	}
	jump := Milliseconds(taken.At-m.last.At) - now.Sub(m.taken)
	if !m.taken.IsZero() && jump.Abs() > clockJump {
		m.lost = now
	}
	m.taken = now
	return !m.lost.IsZero() && now.Sub(m.lost) < heardWithin
}

// back reports whether Redis does everything, and did not until a short while ago. That may be why keys are late, and there is no
// trend yet.
func (m *Monitor) back(taken Snapshot, now time.Time) bool {
	whole := taken.Away == 0 && !taken.Unread && taken.Refusal == ""
	if taken.Away > 0 {
		m.short = now
	}
	return whole && !m.short.IsZero() && now.Sub(m.short) < trendWindow
}

// lateOnce reports whether this is the first sample of which a part is missing. A node of a cluster that forks or writes to its disk may
// be late once; if it is away, the next sample shows that a second later.
func (m *Monitor) lateOnce(taken Snapshot) bool {
	missing := taken.Away > 0 || taken.Unread
	known := m.last.Away > 0 || m.last.Unread || !m.failing.IsZero() || m.partOnce
	m.partOnce = missing && !known
	return m.partOnce
}

// keep adds the sample to the earlier ones, and those to it.
func (m *Monitor) keep(taken *Snapshot) {
	m.history = remember(m.history, taken.Sample)
	m.shards = append(m.shards, ShardsAt{taken.At, taken.Shards})
	m.shards = slices.DeleteFunc(m.shards, func(s ShardsAt) bool {
		return s.At > taken.At || taken.At-s.At > trendWindow.Milliseconds()
	})
	taken.History, taken.Then = m.history, m.shards[0]
}
