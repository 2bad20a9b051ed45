package writepath

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxWaited is the most operations that may be waited for at once. One takes some 300 bytes.
	maxWaited = 100_000

	// waitPoll is the time between two looks without a message: a subscription may lose some. Two commands for each shard that
	// is waited for.
	waitPoll = time.Second

	// looksAtOnce is how many shards are looked at together.
	looksAtOnce = 4

	// lookTimeout bounds one look.
	lookTimeout = 3 * time.Second

	// maxInspected bounds the entries that one call reads.
	maxInspected = 1000
)

// target is an operation that is waited for until Postgres has it.
type target struct {
	key     counter.Key
	version int64 // 0: not known yet, because its base was not
	mark    mark  // no epoch: the entry tells, once it has the version
	hint    bool  // nobody has told the workers of the key

	wait   *wait
	looked bool
	synced bool // Postgres has the version, or a newer one
	over   bool
}

// wait is the targets of one caller.
type wait struct {
	targets []*target
	left    int
	done    chan struct{}
}

// waiters are all that wait in this process for Postgres to have something. They share one subscription, one look at each
// shard for each message, and a slow poll. The first wait starts them.
type waiters struct {
	cache *cache.Cache
	bases Bases
	hints Hints

	mu       sync.Mutex
	reserved int
	shards   map[counter.Shard]map[*target]struct{}
	marked   map[counter.Shard]bool // to be looked at: true all of it, false only what is new
	running  bool
	stopped  bool
	kick     chan struct{}
	stop     chan struct{}
	cancel   context.CancelFunc // ends a look under way; nil: none has begun
	ended    sync.WaitGroup
}

func newWaiters(c *cache.Cache, bases Bases, hints Hints) *waiters {
	return &waiters{
		cache: c, bases: bases, hints: hints,
		shards: make(map[counter.Shard]map[*target]struct{}), marked: make(map[counter.Shard]bool),
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// reserve makes room for n targets, before anything is written for them. release gives it back.
func (w *waiters) reserve(n int) (release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reserved+n > maxWaited {
		return nil, &counter.Error{
			Code: counter.CodeOverloaded, RetryAfter: retryAfter,
			Detail: "too many requests wait for Postgres; the operation was not applied. Without waiting it would be",
		}
	}
	w.reserved += n
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= n
	}, nil
}

// await blocks until Postgres has all targets, bound has passed, ctx ends, or the waiters are stopped. What became of each
// is noted in it.
func (w *waiters) await(ctx context.Context, targets []*target, bound time.Duration) {
	if len(targets) == 0 {
		return
	}
	call := &wait{targets: targets, left: len(targets), done: make(chan struct{})}
	if !w.join(call) {
		return
	}
	defer w.leave(call)
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-call.done:
	case <-timer.C:
	case <-ctx.Done():
	case <-w.stop:
	}
}

func (w *waiters) join(call *wait) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	for _, t := range call.targets {
		t.wait = call
		shard := w.cache.Shard(t.key)
		if w.shards[shard] == nil {
			w.shards[shard] = make(map[*target]struct{})
		}
		w.shards[shard][t] = struct{}{}
		if _, marked := w.marked[shard]; !marked {
			w.marked[shard] = false // only what is new in there
		}
	}
	if !w.running {
		w.running = true
		w.start()
	}
	w.wake()
	return true
}

// leave forgets what is still waited for. Afterwards nobody else touches the targets.
func (w *waiters) leave(call *wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range call.targets {
		w.settle(t, t.synced)
	}
}

// settle ends the wait for one target. The lock is held.
func (w *waiters) settle(t *target, synced bool) {
	if t.over {
		return
	}
	t.over, t.synced = true, synced
	shard := w.cache.Shard(t.key)
	delete(w.shards[shard], t)
	if len(w.shards[shard]) == 0 {
		delete(w.shards, shard)
	}
	if t.wait.left--; t.wait.left == 0 {
		close(t.wait.done)
	}
}

// mark has a shard looked at, where something is waited for in it.
func (w *waiters) mark(shard counter.Shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.shards[shard]) > 0 {
		w.marked[shard] = true
		w.wake()
	}
}

func (w *waiters) markAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for shard := range w.shards {
		w.marked[shard] = true
	}
	w.wake()
}

func (w *waiters) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// start begins to listen and to look. The lock is held.
func (w *waiters) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	acks := w.cache.Acks(ctx)
	w.ended.Go(func() { acks.Run(w.mark, w.markAll) })
	w.ended.Go(func() {
		defer acks.Close()
		w.run(ctx)
	})
}

func (w *waiters) run(ctx context.Context) {
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-w.kick:
			w.lookAll(ctx)
		case <-poll.C:
			w.markAll()
		}
	}
}

// close answers all that wait, and ends the waiters. What waits later is answered at once.
func (w *waiters) close() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.stop)
		if w.cancel != nil {
			w.cancel()
		}
	}
	w.mu.Unlock()
	w.ended.Wait()
}

// lookAll looks at the shards that are marked. An error is left to the next poll.
func (w *waiters) lookAll(ctx context.Context) {
	w.mu.Lock()
	marked := w.marked
	w.marked = make(map[counter.Shard]bool)
	w.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(looksAtOnce)
	for shard, all := range marked {
		group.Go(func() error {
			w.look(ctx, shard, all)
			return nil
		})
	}
	_ = group.Wait() // none fails
}

// look asks Redis once how far a shard has got, for all that wait in it, or those that are new.
func (w *waiters) look(ctx context.Context, shard counter.Shard, all bool) {
	var targets []*target
	w.mu.Lock()
	for t := range w.shards[shard] {
		if all || !t.looked {
			targets = append(targets, t)
		}
	}
	w.mu.Unlock()
	if len(targets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	p, err := w.cache.Progress(ctx, shard)
	if err != nil {
		return // the next look asks again
	}
	var unclear []*target
	w.mu.Lock()
	for _, t := range targets {
		if !t.over && !w.judge(t, p) {
			unclear = append(unclear, t)
		}
		t.looked = true
	}
	w.mu.Unlock()
	w.inspect(ctx, shard, unclear)
}

// judge ends the wait for a target if the shard's progress says that Postgres has it, or that this cannot be known any more. It
// reports false if the entry has to be looked at. The lock is held.
func (w *waiters) judge(t *target, p cache.Progress) bool {
	switch {
	case t.mark.first != 0 && t.mark.first != p.First:
		// Redis was restarted, or another has taken over: it may have lost the write, and given its version to another.
		w.settle(t, false)
	case t.mark.epoch == 0:
		return false
	case t.mark.epoch > p.Watermark:
		// The open epoch gets a new ID when a key leaves its retry, or is repaired, without a flush of its epoch. If it was
		// this key, nobody may ever flush the epoch in which it was written while it was set aside.
		return t.mark.epoch == p.Open || t.mark.epoch == p.Sealed
	case t.version == 0, p.Aside, p.Requeued > t.mark.epoch:
		return false // which version that was, or whether its key was set aside meanwhile, the entry tells
	default:
		w.settle(t, true)
	}
	return true
}

// seen is an entry as it was read, and the watermark of its shard at that moment.
type seen struct {
	cache.Entry

	watermark int64
	row       counter.Row // of one that is not in Redis any more
	stored    bool        // Postgres has such a row
}

// inspect looks at the entries of targets for which the shard's progress does not tell.
func (w *waiters) inspect(ctx context.Context, shard counter.Shard, targets []*target) {
	if len(targets) == 0 {
		return
	}
	entries, err := w.read(ctx, shard, targets)
	if err != nil {
		return // the next look asks again
	}
	// After the entries: a key that left its retry before they were read is in p.Requeued.
	p, err := w.cache.Progress(ctx, shard)
	if err != nil {
		return
	}
	offered := make(map[counter.Key]bool)
	w.mu.Lock()
	for _, t := range targets {
		e := entries[t.key]
		if t.hint && e.Dirty(e.watermark) {
			offered[t.key], t.hint = true, false
		}
		if !t.over {
			w.judgeEntry(t, e, p)
		}
	}
	w.mu.Unlock()
	for key := range offered {
		w.hints.Offer(key, shard, 1)
	}
}

// read reads the entries of targets, and from Postgres the rows of those that are not in Redis any more.
func (w *waiters) read(ctx context.Context, shard counter.Shard, targets []*target) (map[counter.Key]*seen, error) {
	entries := make(map[counter.Key]*seen)
	keys := make([]counter.Key, 0, len(targets))
	for _, t := range targets {
		if _, found := entries[t.key]; !found {
			entries[t.key] = nil
			keys = append(keys, t.key)
		}
	}
	var missing []counter.Key
	for part := range slices.Chunk(keys, maxInspected) {
		snapshot, err := w.cache.Read(ctx, shard, part)
		if err != nil {
			return nil, err
		}
		for _, e := range snapshot.Entries {
			entries[e.Key] = &seen{Entry: e, watermark: snapshot.Watermark}
			if e.Missing {
				missing = append(missing, e.Key)
			}
		}
	}
	if len(missing) == 0 {
		return entries, nil
	}
	rows, err := w.bases.Read(ctx, missing)
	if err != nil {
		return entries, nil // the next look asks again for these
	}
	for key, row := range rows {
		entries[key].row, entries[key].stored = row, true
	}
	return entries, nil
}

// judgeEntry is judge by the entry. The lock is held.
func (w *waiters) judgeEntry(t *target, e *seen, p cache.Progress) {
	passed := t.mark.epoch != 0 && t.mark.epoch <= e.watermark && t.mark.epoch >= p.Requeued
	switch {
	case e.Missing:
		// Only a clean entry is evicted.
		if e.stored && e.row.Version >= t.version {
			t.version = e.row.Version
			w.settle(t, true)
		}
	case e.Corrupt, e.BaseUnknown, e.Version < t.version, e.Aside:
	case !e.Dirty(e.watermark):
		t.version = e.Version
		w.settle(t, true)
	case passed:
		w.settle(t, true) // of a version that was not known, only that it is older than the entry's
	default:
		t.version = cmp.Or(t.version, e.Version)
		t.mark = mark{epoch: e.Epoch, first: p.First}
	}
}
