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
	// SampleEvery is the interval at which Monitor.Next should be called.
	SampleEvery = time.Second

	// sampleTimeout bounds one sample. If Redis takes longer, it counts as down.
	sampleTimeout = 2 * time.Second

	// lossAllowed is how long heartbeats may be lost before running processes may seem to be gone.
	lossAllowed = time.Second

	// clockJump is the difference between the progress of Redis's clock and the local one above which a clock was set.
	clockJump = 3 * time.Second

	// promotedFor is how long a failover is reported.
	promotedFor = time.Minute

	// heardWithin is the time in which every process sends a heartbeat once Redis accepts them again.
	heardWithin = 6 * time.Second
)

// Monitor takes samples, and keeps the state that judgements need: earlier samples, and outages of Redis. It is not safe for concurrent
// use.
type Monitor struct {
	sampler *sampler
	redis   redis.UniversalClient
	log     *slog.Logger

	last       Snapshot
	history    []Sample
	shards     []ShardsAt // samples of the trend's window, oldest first
	loaded     bool       // history has the samples of earlier processes
	failing    time.Time  // start of the outage; zero: the last sample succeeded
	unrecorded bool       // the last sample could not be recorded
	taken      time.Time  // when the last sample was taken
	losing     time.Time  // since when heartbeats have been lost; zero: none are lost
	lost       time.Time  // last time at which they had been lost for lossAllowed
	short      time.Time  // last time at which Redis did not answer, refused writes or lacked shards
	partOnce   bool       // the last sample was the first incomplete one
	since      time.Time  // since when Redis has not been whole; zero: it is
	promoted   time.Time  // when another server was seen to be a master; zero: never

	masters map[string]time.Time // when INFO was read that showed each incarnation of a master last
}

// NewMonitor returns a Monitor. client is that of the cache; the caller closes it.
func NewMonitor(c *cache.Cache, client redis.UniversalClient, log *slog.Logger) *Monitor {
	return &Monitor{sampler: newSampler(c, client), redis: client, log: log, last: Snapshot{Starting: true}}
}

// Next takes a sample, records it in Redis, and returns a Snapshot. It blocks for at most 2 s. ok is false if there is no new one, because
// ctx is done or a cluster node was late once. If Redis does not answer, the Snapshot reports it.
func (m *Monitor) Next(ctx context.Context) (s Snapshot, ok bool) {
	bounded, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	began := time.Now()
	taken, err := m.sampler.take(bounded)
	switch {
	case ctx.Err() != nil:
		return m.last, false
	case err != nil:
		m.fail(err, began, time.Now())
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
	taken.Promoted = m.promotion(taken.Redis, now)
	taken.Short = m.shortage(taken, now)
	taken.Missed = m.missed(taken, now)
	taken.Back = m.back(taken, now)
	m.store(&taken)
	m.last = taken
	return taken, true
}

// fail records that Redis has not served since began. The rest of the last Snapshot stays.
func (m *Monitor) fail(err error, began, now time.Time) {
	if m.failing.IsZero() {
		m.failing = began
		m.log.Warn("no samples can be taken; trying again each second", "error", err)
	}
	m.last.Starting, m.last.Denial = false, cache.Denial(err)
	m.last.Failed = max(now.Sub(m.failing), time.Millisecond)
	if m.since.IsZero() {
		m.since = m.failing
	}
	m.last.Short = m.last.Failed
	m.lose(now)
}

// shortage returns Snapshot.Short.
func (m *Monitor) shortage(taken Snapshot, now time.Time) time.Duration {
	switch {
	case taken.Away == 0 && !taken.Unread && taken.Refusal == "":
		m.since = time.Time{}
		return 0
	case m.since.IsZero():
		m.since = now
	}
	return max(now.Sub(m.since), time.Millisecond)
}

// promotion returns Snapshot.Promoted. A master has been promoted if it continues the data of a known one, and ran already when that was
// last seen. A restarted server may continue its own data. A master also takes a new ID when its first replica comes, or its last one has
// left for an hour, but then it continues none. Heartbeats may have been lost meanwhile.
func (m *Monitor) promotion(info cache.Info, now time.Time) time.Duration {
	if m.masters == nil {
		m.masters = make(map[string]time.Time)
	}
	for _, master := range info.Masters {
		_, seen := m.masters[master.Incarnation]
		former, continues := m.masters[master.Former]
		if !seen && continues && master.Uptime > info.Read.Sub(former) {
			m.promoted, m.lost = now, now
			m.log.Info("redis has failed over: another server is a master now")
		}
		m.masters[master.Incarnation] = info.Read
	}
	for id, seen := range m.masters {
		if now.Sub(seen) > keepFor {
			delete(m.masters, id)
		}
	}
	if ago := now.Sub(m.promoted); !m.promoted.IsZero() && ago < promotedFor {
		return max(ago, time.Millisecond)
	}
	return 0
}

// record stores the sample in Redis. Before the first one, it loads the history. Its error shows whether Redis refuses writes.
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

// load reads the samples of earlier processes. If it fails, the next sample tries again.
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

// lose records that heartbeats are lost now.
func (m *Monitor) lose(now time.Time) {
	if m.losing.IsZero() {
		m.losing = now
	}
	if now.Sub(m.losing) >= lossAllowed {
		m.lost, m.short = now, now
	}
}

// missed reports whether heartbeats were lost recently, so that running processes may seem to be gone. They may also seem to be gone if
// Redis's clock has jumped since the last sample, for example because another node has become the master.
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

// back reports whether Redis works again after an outage within trendWindow. The outage may explain late keys, and there is no trend yet.
func (m *Monitor) back(taken Snapshot, now time.Time) bool {
	whole := taken.Away == 0 && !taken.Unread && taken.Refusal == ""
	if taken.Away > 0 {
		m.short = now
	}
	return whole && !m.short.IsZero() && now.Sub(m.short) < trendWindow
}

// lateOnce reports whether this is the first incomplete sample. A cluster node that forks or writes to its disk may be late once. If it is
// down, the next sample shows it.
func (m *Monitor) lateOnce(taken Snapshot) bool {
	missing := taken.Away > 0 || taken.Unread
	known := m.last.Away > 0 || m.last.Unread || !m.failing.IsZero() || m.partOnce
	m.partOnce = missing && !known
	return m.partOnce
}

// store adds the sample to the history, and the history to the sample.
func (m *Monitor) store(taken *Snapshot) {
	m.history = remember(m.history, taken.Sample)
	m.shards = append(m.shards, ShardsAt{taken.At, taken.Shards})
	m.shards = slices.DeleteFunc(m.shards, func(s ShardsAt) bool {
		return s.At > taken.At || taken.At-s.At > trendWindow.Milliseconds()
	})
	taken.History, taken.Then = m.history, m.shards[0]
}
