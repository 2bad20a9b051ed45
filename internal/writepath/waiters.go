package writepath

import (
	"context"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxWaited bounds the operations that wait for Postgres. Each takes some 300 bytes.
	maxWaited = 100_000

	// waitPoll is the time between two checks without a message: a subscription may lose some. A check costs three commands for each
	// awaited shard.
	waitPoll = time.Second
)

// target is an operation that a caller waits for.
type target struct {
	key     counter.Key
	version int64 // 0: not known yet, because the base was unknown
	mark    mark  // without an epoch the entry decides, once it has the version
	hint    bool  // the workers have not been told about the key

	wait    *wait
	checked bool
	synced  bool // Postgres has the version, or a newer one
	over    bool
}

// wait holds the targets of one caller.
type wait struct {
	targets []*target
	left    int
	done    chan struct{}
}

// waiters serves all callers in this process that wait until Postgres has a write. They share one subscription, one check of a shard for
// each message, and a slow poll. The first wait starts these.
type waiters struct {
	cache *cache.Cache
	bases Bases
	hints Hints

	mu       sync.Mutex
	reserved int
	shards   map[counter.Shard]map[*target]struct{}
	marked   map[counter.Shard]bool // shards to check: true all targets, false only new ones
	running  bool
	stopped  bool
	kick     chan struct{}
	stop     chan struct{}
	cancel   context.CancelFunc // ends a check in progress; nil: nothing has started
	ended    sync.WaitGroup
}

func newWaiters(c *cache.Cache, bases Bases, hints Hints) *waiters {
	return &waiters{
		cache: c, bases: bases, hints: hints,
		shards: make(map[counter.Shard]map[*target]struct{}), marked: make(map[counter.Shard]bool),
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// reserve makes room for n targets before anything is written for them. release gives it back.
func (w *waiters) reserve(n int) (release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reserved+n > maxWaited {
		return nil, &counter.Error{
			Code: counter.CodeOverloaded, RetryAfter: retryAfter,
			Detail: "too many requests wait for Postgres; the operation was not applied. Repeat it without waiting",
		}
	}
	w.reserved += n
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= n
	}, nil
}

// await blocks until Postgres has all targets, bound has passed, ctx ends, or the waiters are stopped. It sets synced and version of each
// target.
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
			w.marked[shard] = false // only its new targets
		}
	}
	if !w.running {
		w.running = true
		w.start()
	}
	w.wake()
	return true
}

// leave ends the wait for all targets of a caller. Afterwards nothing else touches them.
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

// mark requests a check of a shard, if it has targets.
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

// start starts the subscription and the checks. The lock is held.
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
			w.checkAll(ctx)
		case <-poll.C:
			w.markAll()
		}
	}
}

// close ends all waits, and the waiters. Later waits end at once.
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
