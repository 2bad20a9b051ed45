package writepath

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxWaited is the most operations that may be waited for at once. One takes some 300 bytes, and each look at Redis
	// takes 4 µs for each key.
	maxWaited = 100_000

	// waitPoll is the time between two looks without a message: a subscription may lose some, and what reaches Postgres in
	// other ways than by an ack sends none. One call for each shard that is waited for.
	waitPoll = time.Second

	// looksAtOnce is how many shards are looked at together.
	looksAtOnce = 4

	// lookTimeout bounds one look.
	lookTimeout = 3 * time.Second
)

// target is an operation that is waited for until Postgres has it.
type target struct {
	key     counter.Key
	version int64 // 0: not known yet, because its base was not
	hint    bool  // nobody has told the workers of the key

	wait        *wait
	looked      bool
	incarnation string // of Redis at the first look
	life        string // of the entry then, if it had the version
	synced      int64  // a version that Postgres has, at least the one that was waited for; 0: not yet
	over        bool
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
func (w *waiters) settle(t *target, synced int64) {
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
	acks := w.cache.Acks(ctx)
	w.ended.Go(func() { acks.Run(w.mark, w.markAll) })
	w.ended.Go(func() {
		defer cancel()
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

// look asks Redis once how far the keys of a shard have got that are waited for: all, or those that are new.
func (w *waiters) look(ctx context.Context, shard counter.Shard, all bool) {
	byKey := make(map[counter.Key][]*target)
	w.mu.Lock()
	for t := range w.shards[shard] {
		if all || !t.looked {
			byKey[t.key] = append(byKey[t.key], t)
		}
	}
	w.mu.Unlock()
	if len(byKey) == 0 {
		return
	}
	keys := make([]counter.Key, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	states, incarnation, err := w.cache.Progress(ctx, shard, keys)
	if err != nil {
		return
	}
	rows := w.expired(ctx, keys, states)

	var hints []counter.Key
	w.mu.Lock()
	for i, key := range keys {
		row, found := rows[key]
		for _, t := range byKey[key] {
			if first := !t.looked; first && t.hint && states[i].Dirty {
				hints = append(hints, key)
				t.hint = false
			}
			w.judge(t, states[i], incarnation, row, found)
		}
	}
	w.mu.Unlock()
	for i, key := range hints {
		if i == 0 || key != hints[i-1] { // those of one key follow each other
			w.hints.Offer(key, shard, 1)
		}
	}
}

// expired reads the rows of those keys that are clean and not in Redis any more: only Postgres knows how far they got.
func (w *waiters) expired(ctx context.Context, keys []counter.Key, states []cache.Progress) map[counter.Key]counter.Row {
	var gone []counter.Key
	for i, key := range keys {
		if !states[i].Entry && !states[i].Dirty {
			gone = append(gone, key)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	rows, err := w.bases.Read(ctx, gone)
	if err != nil {
		return nil // the next look asks again
	}
	return rows
}

// judge ends the wait for a target if Postgres has it, or if that cannot be known any more. The lock is held.
func (w *waiters) judge(t *target, p cache.Progress, incarnation string, row counter.Row, found bool) {
	if t.over {
		return
	}
	if !t.looked {
		t.looked, t.incarnation = true, incarnation
		if p.Version >= t.version {
			t.life = p.Life
		}
	}
	switch {
	case t.incarnation != incarnation:
		// Redis was restarted, or another has taken over: it may have lost the write, and given its version to another.
		w.settle(t, 0)
	case p.Entry && !p.BaseUnknown:
		if t.version == 0 {
			t.version = p.Version // the base has come: this is, or comes after, the version that was waited for
		}
		if has := t.committed(p); has >= t.version {
			w.settle(t, has)
		}
	case !p.Entry && !p.Dirty && found && t.version > 0 && row.Version >= t.version:
		w.settle(t, row.Version)
	}
}

// committed is the newest version that Postgres is known to have of an entry whose base is known.
func (t *target) committed(p cache.Progress) int64 {
	switch {
	case !p.Dirty:
		return p.Version
	case t.life != "" && p.Life != t.life:
		return max(p.Committed, p.Base) // it has been clean, and written again: Redis has not been restarted meanwhile
	default:
		return p.Committed
	}
}
