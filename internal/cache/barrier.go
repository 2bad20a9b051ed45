package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Level is how durable a write has to be in Redis.
type Level int

// The levels.
const (
	OnReplicas Level = iota // in the memory of a number of replicas
	OnDisk                  // in the append-only file on the primary's disk
)

const (
	// barrierRound bounds one WAIT. Callers that arrive meanwhile share the next.
	barrierRound = 500 * time.Millisecond

	// barrierFresh is how long a connection counts as alive, and how long the server's settings are cached.
	barrierFresh = time.Second

	// markerTTL is how long the marker key is kept.
	markerTTL = time.Minute
)

// Errors of a Barrier.
var (
	ErrNoSuchLevel = errors.New("this Redis does not support the durability level")
	ErrNotReached  = errors.New("the durability level was not reached")
)

// Barrier waits until writes that Redis has answered are on replicas, or on disk. WAIT covers only writes of its own connection, so the
// Barrier writes a marker on that connection first: replicas and the file receive it after all earlier writes. One marker and one WAIT
// serve all callers that arrived while the previous WAIT was in flight. It is safe for concurrent use.
type Barrier struct {
	cache    *Cache
	replicas int

	mu    sync.Mutex
	lines map[*redis.Client]*line
}

// NewBarrier returns a Barrier. OnReplicas waits for the given number of replicas. Close closes its connections.
func (c *Cache) NewBarrier(replicas int) *Barrier {
	return &Barrier{cache: c, replicas: replicas, lines: make(map[*redis.Client]*line)}
}

// Close closes the connections. Call it after the last Await; it blocks until the round in flight has ended.
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

// Pass waits for the writes that follow its Begin.
type Pass struct {
	level Level
	conns map[*line]int // the number of each connection at Begin
}

// Begin connects to each server that holds the keys; call it before the writes. While the connection holds, the server is the one that
// applied the writes, not one that was promoted without them. It returns ErrNoSuchLevel if the server does not support the level.
func (b *Barrier) Begin(ctx context.Context, level Level, keys []counter.Key) (*Pass, error) {
	p := &Pass{level: level, conns: make(map[*line]int)}
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
		if _, known := p.conns[l]; known {
			continue
		}
		if p.conns[l], err = l.ready(ctx, level); err != nil {
			return nil, err
		}
		if !b.cache.cluster {
			break // one server holds all shards
		}
	}
	return p, nil
}

// Await blocks until the writes since Begin have reached the level. It returns ErrNotReached if ctx ends before, or the connection breaks.
func (p *Pass) Await(ctx context.Context) error {
	for l, number := range p.conns {
		if err := l.await(ctx, p.level, number); err != nil {
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

// line is a connection to one primary and the callers that wait on it.
type line struct {
	client   *redis.Client
	replicas int
	marker   string // the marker key; on a cluster, in a shard that the server holds

	mu      sync.Mutex
	conn    *redis.Conn // nil: none
	number  int         // of conn; each reconnect changes it
	used    time.Time   // when conn last worked
	always  bool        // the append-only file is flushed to disk before each answer
	waitAOF bool        // the server has an append-only file and supports WAITAOF
	running bool        // rounds are running
	rounds  sync.WaitGroup
	next    map[Level]*round
}

// round is one WAIT for all callers that arrived before it began.
type round struct {
	done   chan struct{}
	number int // of its connection
	err    error
}

// ready makes sure that there is a connection and returns its number.
func (l *line) ready(ctx context.Context, level Level) (number int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx = context.WithoutCancel(ctx) // a caller that leaves must not break a shared connection; the client's time-outs bound this
	if l.conn != nil && !l.running && time.Since(l.used) > barrierFresh && l.learn(ctx) != nil {
		l.drop() // it was idle, so hardly any caller depends on it
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
	return l.number, nil
}

// drop closes the connection. The lock is held.
func (l *line) drop() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
	l.used = time.Time{}
	l.number++
}

// learn asks the server what it supports. The lock is held, and no round is running.
func (l *line) learn(ctx context.Context) error {
	text, err := l.conn.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	l.used = time.Now()
	// A server that hides its settings may still have an append-only file: WAITAOF shows it.
	settings, err := l.conn.ConfigGet(ctx, "append*").Result()
	l.always = err == nil && settings["appendonly"] == "yes" && settings["appendfsync"] == "always"
	info := ParseInfo(text)
	l.waitAOF = info.AtLeast(7, 2) && (err != nil || settings["appendonly"] == "yes")
	return nil
}

func (l *line) await(ctx context.Context, level Level, number int) error {
	for {
		r := l.join(level)
		select {
		case <-r.done:
		case <-ctx.Done():
			return ErrNotReached
		}
		switch {
		case r.number != number:
			return fmt.Errorf("%w: the connection broke: another server may be the primary now", ErrNotReached)
		case r.err == nil:
			return nil
		case !errors.Is(r.err, ErrNotReached):
			return fmt.Errorf("%w: %w", ErrNotReached, r.err)
		case ctx.Err() != nil:
			return ErrNotReached
		}
	}
}

// join returns the next round that will begin.
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

// run runs rounds while callers wait for one. The client's time-outs bound each.
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
		r.number = l.number
		conn, always := l.conn, l.always
		l.mu.Unlock()

		if conn == nil {
			r.err = errors.New("the connection broke")
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

// wait writes the marker and waits until it has reached the level.
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
		return nil // the file was flushed before the marker was answered, and the marker follows the writes in it
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
