package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Level is where in Redis a write has to be.
type Level int

// The levels.
const (
	OnReplicas Level = iota // on so many replicas, in their memory
	OnDisk                  // in the append-only file, flushed to the disk of the primary
)

const (
	// barrierRound bounds one WAIT: those who come meanwhile wait for the next.
	barrierRound = 500 * time.Millisecond

	// barrierFresh is how long a connection is taken for alive, and the settings of the server for known.
	barrierFresh = time.Second

	// markerTTL is how long the key stays whose write is waited for.
	markerTTL = time.Minute
)

// Errors of a Barrier.
var (
	ErrNoSuchLevel = errors.New("this Redis cannot give that")
	ErrNotReached  = errors.New("not reached")
)

// Barrier makes sure that writes which Redis has answered are on replicas, or on disk. WAIT counts what its own connection has
// written, so a marker is written on that connection first: replicas and the file get it after all writes before it. One marker
// and one WAIT serve all who have come while the ones before were under way. It is safe for concurrent use.
type Barrier struct {
	cache    *Cache
	replicas int

	mu    sync.Mutex
	lines map[*redis.Client]*line
}

// NewBarrier returns a Barrier for which OnReplicas means that many. Close ends its connections.
func (c *Cache) NewBarrier(replicas int) *Barrier {
	return &Barrier{cache: c, replicas: replicas, lines: make(map[*redis.Client]*line)}
}

// Close ends the connections, when nobody waits any more: a round that nobody is interested in may still be under way, and
// is let end.
func (b *Barrier) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		l.rounds.Wait()
		l.mu.Lock()
		l.drop()
		l.mu.Unlock()
	}
}

// Pass is for writes to some keys which are about to be made.
type Pass struct {
	level  Level
	epochs map[*line]int
}

// Begin is to be called before the writes: it makes sure that there is a connection to each server that has the keys. As long
// as it holds, that is the server which has the writes, not one that has taken over without them. ErrNoSuchLevel: the server
// cannot give the level at all.
func (b *Barrier) Begin(ctx context.Context, level Level, keys []counter.Key) (*Pass, error) {
	p := &Pass{level: level, epochs: make(map[*line]int)}
	seen := make(map[counter.Shard]bool)
	for _, key := range keys {
		shard := b.cache.Shard(key)
		if seen[shard] {
			continue
		}
		seen[shard] = true
		l, err := b.line(ctx, shard)
		if err != nil {
			return nil, err
		}
		if _, known := p.epochs[l]; known {
			continue
		}
		if p.epochs[l], err = l.ready(ctx, level); err != nil {
			return nil, err
		}
		if !b.cache.cluster {
			break // one server has all
		}
	}
	return p, nil
}

// Await blocks until the writes that were made since Begin are where they are to be, or ctx ends: ErrNotReached.
func (p *Pass) Await(ctx context.Context) error {
	for l, epoch := range p.epochs {
		if err := l.await(ctx, p.level, epoch); err != nil {
			return err
		}
	}
	return nil
}

// line returns the line to the primary of a shard.
func (b *Barrier) line(ctx context.Context, shard counter.Shard) (*line, error) {
	var client *redis.Client
	switch c := b.cache.client.(type) {
	case *redis.Client:
		client = c
	case *redis.ClusterClient:
		var err error
		if client, err = c.MasterForKey(ctx, b.cache.metaKey(shard)); err != nil {
			return nil, fmt.Errorf("find the primary of shard %s: %w", shard, err)
		}
	default:
		return nil, ErrNoSuchLevel
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines[client] == nil {
		b.lines[client] = &line{client: client, replicas: b.replicas, marker: b.cache.tag(shard) + ":wait", next: make(map[Level]*round)}
	}
	return b.lines[client], nil
}

// line is a connection to one primary, and those who wait on it.
type line struct {
	client   *redis.Client
	replicas int
	marker   string // the key; on a cluster, one that the server has

	mu      sync.Mutex
	conn    *redis.Conn // nil: none
	epoch   int         // of conn; another after it broke
	used    time.Time   // when conn was known to be good
	always  bool        // the append-only file is flushed before each answer
	waitAOF bool        // the server has an append-only file, and WAITAOF
	running bool        // rounds are
	rounds  sync.WaitGroup
	next    map[Level]*round
}

// round is one WAIT for all who have come before it began.
type round struct {
	done  chan struct{}
	epoch int
	err   error
}

// ready makes sure of the connection and says which it is.
func (l *line) ready(ctx context.Context, level Level) (epoch int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx = context.WithoutCancel(ctx) // a caller that leaves must not break it for others; the client's time-outs bound it
	if l.conn != nil && !l.running && time.Since(l.used) > barrierFresh && l.learn(ctx) != nil {
		l.drop() // it was idle, so hardly anybody loses by that
	}
	if l.conn == nil {
		l.conn = l.client.Conn()
		if err := l.learn(ctx); err != nil {
			l.drop()
			return 0, err
		}
	}
	if level == OnDisk && !l.always && !l.waitAOF {
		return 0, ErrNoSuchLevel
	}
	return l.epoch, nil
}

// drop gives the connection up. The lock is held.
func (l *line) drop() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
	l.used = time.Time{}
	l.epoch++
}

// learn asks the server what it can. The lock is held, and no round is running.
func (l *line) learn(ctx context.Context) error {
	info, err := l.conn.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	l.used = time.Now()
	// A server that does not show its settings may still have a file: WAITAOF says so.
	settings, err := l.conn.ConfigGet(ctx, "append*").Result()
	l.always = err == nil && settings["appendonly"] == "yes" && settings["appendfsync"] == "always"
	l.waitAOF = hasWaitAOF(info) && (err != nil || settings["appendonly"] == "yes")
	return nil
}

// hasWaitAOF reads from INFO whether the server is Redis 7.2 or newer, or Valkey, which began there.
func hasWaitAOF(info string) bool {
	_, rest, _ := strings.Cut(info, "redis_version:")
	var major, minor int
	_, err := fmt.Sscanf(rest, "%d.%d", &major, &minor)
	return err == nil && (major > 7 || (major == 7 && minor >= 2))
}

func (l *line) await(ctx context.Context, level Level, epoch int) error {
	for {
		r := l.join(level)
		select {
		case <-r.done:
		case <-ctx.Done():
			return ErrNotReached
		}
		switch {
		case r.epoch != epoch:
			return fmt.Errorf("%w: the connection broke: the primary may be another", ErrNotReached)
		case r.err == nil:
			return nil
		case !errors.Is(r.err, ErrNotReached):
			return fmt.Errorf("%w: %w", ErrNotReached, r.err)
		case ctx.Err() != nil:
			return ErrNotReached
		}
	}
}

// join returns the next round to begin.
func (l *line) join(level Level) *round {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next[level] == nil {
		l.next[level] = &round{done: make(chan struct{})}
	}
	if !l.running {
		l.running = true
		l.rounds.Go(l.run)
	}
	return l.next[level]
}

// run runs rounds while somebody waits for one. Each is bounded by the client's time-outs.
func (l *line) run() {
	for {
		l.mu.Lock()
		var level Level
		var r *round
		for level, r = range l.next {
			break
		}
		if r == nil {
			l.running = false
			l.mu.Unlock()
			return
		}
		delete(l.next, level)
		r.epoch = l.epoch
		conn, always := l.conn, l.always
		l.mu.Unlock()

		if conn == nil {
			r.err = errors.New("the connection broke before")
		} else {
			r.err = l.wait(conn, level, always)
		}
		l.mu.Lock()
		switch {
		case r.err == nil, errors.Is(r.err, ErrNotReached):
			l.used = time.Now()
		case conn != nil && conn == l.conn:
			l.drop()
		}
		l.mu.Unlock()
		close(r.done)
	}
}

// wait writes the marker and waits until it is where it is to be.
func (l *line) wait(conn *redis.Conn, level Level, always bool) error {
	ctx := context.Background()
	if err := conn.Set(ctx, l.marker, "1", markerTTL).Err(); err != nil {
		return err
	}
	var got, want int64
	var err error
	switch {
	case level == OnReplicas:
		want = int64(l.replicas)
		got, err = conn.Wait(ctx, l.replicas, barrierRound).Result()
	case always:
		return nil // the answer to the marker came after the file was flushed, and the marker is behind the writes in it
	default:
		var both []int64
		want = 1
		if both, err = conn.WaitAOF(ctx, 1, 0, barrierRound).Result(); err == nil && len(both) > 0 {
			got = both[0]
		}
	}
	if err == nil && got < want {
		err = ErrNotReached
	}
	return err
}
