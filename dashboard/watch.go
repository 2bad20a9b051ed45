package dashboard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/sample"
)

const (
	// sampleEvery is the time between two samples, whoever looks: the history is to be there before anybody does.
	sampleEvery = time.Second

	// sampleTimeout bounds one sample. A Redis that takes longer counts as one that cannot be reached.
	sampleTimeout = 2 * time.Second

	// missable is for how long beats may be seen to be lost until processes that run may seem to be gone.
	missable = time.Second

	// clockJump is more than a clock and ours differ from one sample to the next, unless it was set.
	clockJump = 3 * time.Second

	// hearAgain is within what a process beats again when Redis takes it again.
	hearAgain = 6 * time.Second
)

// watch takes a sample each second, and keeps the last frame for all viewers.
type watch struct {
	sampler *sample.Sampler
	redis   redis.UniversalClient
	log     *slog.Logger

	mu      sync.Mutex
	current *frame
	next    chan struct{} // closed when there is a newer frame

	// What only the goroutine of run uses.
	history   []sample.Sample
	shards    []shardsAt // of the trend's window, the oldest first
	loaded    bool       // the history of before this process
	failing   time.Time  // since when; zero: the last sample was fine
	unwritten bool       // the last sample could not be recorded
	taken     time.Time  // when the last sample was
	lossy     time.Time  // since when beats have been lost; zero: they are not
	deaf      time.Time  // when so many were last that nobody knew who runs
	short     time.Time  // when Redis was away, refused writes or lacked shards last
	once      bool       // the last sample was the first of which a part was missing
}

// frame is what all viewers see in one second. It does not change.
type frame struct {
	condition

	mu    sync.Mutex
	parts map[string][]byte // by page: what live viewers get, made for the first who asks
}

func newWatch(sampler *sample.Sampler, client redis.UniversalClient, log *slog.Logger) *watch {
	return &watch{
		sampler: sampler, redis: client, log: log,
		current: &frame{condition: condition{Starting: true}}, next: make(chan struct{}),
	}
}

// latest returns the last frame, and a channel that is closed when there is a newer one. It does not block, so a viewer
// that is slow misses frames, and delays nobody.
func (w *watch) latest() (*frame, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current, w.next
}

// first is latest for who comes as the process starts: it waits for the first frame, a second at most.
func (w *watch) first(ctx context.Context) *frame {
	f, next := w.latest()
	if !f.Starting {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, sampleEvery)
	defer cancel()
	select {
	case <-next:
	case <-ctx.Done():
	}
	f, _ = w.latest()
	return f
}

// run takes samples until ctx is done.
func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		w.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// step takes one sample, and publishes what came of it.
func (w *watch) step(ctx context.Context) {
	c := w.current.condition // only this goroutine replaces it
	taken, err := w.take(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, errOnce):
		return // the last frame stands
	case err != nil:
		if w.failing.IsZero() {
			w.failing = time.Now()
			w.log.Warn("no samples can be taken; trying again each second", "error", err)
		}
		c.Starting, c.Failed, c.Denial = false, max(time.Since(w.failing), time.Millisecond), cache.Denial(err)
		w.lose(time.Now())
	default:
		if !w.failing.IsZero() {
			w.log.Info("samples are taken again")
			w.failing = time.Time{}
		}
		now := time.Now()
		c.Deaf = w.hears(taken, c.At, now)
		c.Back = w.back(taken, now)
		c.Starting, c.Failed, c.Denial, c.Snapshot = false, 0, "", taken
		w.keep(&c)
	}
	w.publish(&frame{condition: c})
}

// lose notes that beats are lost now.
func (w *watch) lose(now time.Time) {
	if w.lossy.IsZero() {
		w.lossy = now
	}
	if now.Sub(w.lossy) >= missable {
		w.deaf, w.short = now, now
	}
}

// hears notes whether beats get through, and reports whether so many were lost lately that processes that run may seem to be
// gone. They may as well when the clock of Redis, by which they are old, has jumped since last: another one, with another
// clock, has become the master perhaps.
func (w *watch) hears(taken sample.Snapshot, last int64, now time.Time) (deaf bool) {
	if taken.Refusal != "" || taken.Unread {
		w.lose(now)
	} else {
		w.lossy = time.Time{}
	}
	jump := duration(taken.At-last) - now.Sub(w.taken)
	if !w.taken.IsZero() && jump.Abs() > clockJump {
		w.deaf = now
	}
	w.taken = now
	return !w.deaf.IsZero() && now.Sub(w.deaf) < hearAgain
}

// back reports whether Redis does all that it should, and did not until a short while ago: what is late may be so for that reason,
// and no trend is known yet.
func (w *watch) back(taken sample.Snapshot, now time.Time) bool {
	whole := taken.Away == 0 && !taken.Unread && taken.Refusal == ""
	if taken.Away > 0 {
		w.short = now
	}
	return whole && !w.short.IsZero() && now.Sub(w.short) < trendWindow
}

func (w *watch) publish(f *frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = f
	close(w.next)
	w.next = make(chan struct{})
}

// errOnce says that a part of a sample is missing, for the first time.
var errOnce = errors.New("a node was late once")

// lateOnce reports whether a part of the sample is missing and none was of that before: a node of a cluster that forks or writes to
// its disk is late once, and not away. Where it is away, the next sample says so, a second later.
func (w *watch) lateOnce(taken sample.Snapshot) bool {
	missing := taken.Away > 0 || taken.Unread
	known := w.current.Away > 0 || w.current.Unread || !w.failing.IsZero() || w.once
	w.once = missing && !known
	return w.once
}

func (w *watch) take(ctx context.Context) (sample.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	taken, err := w.sampler.Take(ctx)
	if err != nil {
		return sample.Snapshot{}, err
	}
	if w.lateOnce(taken) {
		return sample.Snapshot{}, errOnce
	}
	if !w.loaded {
		w.load(ctx, taken)
	}
	_, err = sample.Record(ctx, w.redis, taken.Sample)
	if err != nil && !w.unwritten {
		w.log.Warn("samples cannot be recorded: whoever starts the dashboard next will not see them", "error", err)
	}
	w.unwritten = err != nil
	taken.Refusal = cmp.Or(taken.Refusal, cache.Refusal(err))
	return taken, nil
}

// keep adds the sample of c to what came before it, and that to c.
func (w *watch) keep(c *condition) {
	w.history = remember(w.history, c.Sample)
	w.shards = append(w.shards, shardsAt{c.At, c.Shards})
	w.shards = slices.DeleteFunc(w.shards, func(s shardsAt) bool {
		return s.At > c.At || c.At-s.At > trendWindow.Milliseconds()
	})
	c.History, c.Then = w.history, w.shards[0]
}

// load takes the history of before this process. Where it is on a node of a cluster that is away, the next sample tries again.
func (w *watch) load(ctx context.Context, taken sample.Snapshot) {
	before, err := sample.History(ctx, w.redis, taken.At)
	if err != nil {
		return
	}
	w.loaded = true
	if len(w.history) > 0 {
		before = slices.DeleteFunc(before, func(s sample.Sample) bool { return s.At >= w.history[0].At })
	}
	w.history = append(before, w.history...)
}

// remember appends s, without what is older than 15 minutes, or later than s: the clock was set back. Frames share what is
// before their own end, which is never written again.
func remember(history []sample.Sample, s sample.Sample) []sample.Sample {
	for len(history) > 0 && history[len(history)-1].At >= s.At {
		history = history[: len(history)-1 : len(history)-1] // so that the next append copies
	}
	old := slices.IndexFunc(history, func(h sample.Sample) bool { return h.At > s.At-sample.Kept*1000 })
	if old < 0 {
		old = len(history)
	}
	history = append(history[old:], s)
	return history[max(0, len(history)-sample.Kept):]
}
