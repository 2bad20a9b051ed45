package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Level is where the writes of a Writer must be before they are confirmed.
type Level int

// The levels.
const (
	InMemory   Level = iota // in the memory of the primary: nothing is confirmed
	OnReplicas              // in the memory of a number of replicas
	OnDisk                  // in the append-only file on the primary's disk
)

const (
	// maxConfirming bounds the calls to one server that wait for their confirmation; each uses a connection. If replicas answer within
	// 10 ms, it allows more than 100,000 operations a second.
	maxConfirming = 16

	// confirmPatience bounds how long a call waits for one of these connections. If none gets free, the replicas or the disk are behind.
	confirmPatience = 500 * time.Millisecond

	// usualConfirmation is how long callers are held back for their confirmation. Nearly all come earlier, and a caller that is
	// woken once instead of twice costs less. After it each may also wait for Postgres, or give up earlier than others.
	usualConfirmation = 10 * time.Millisecond

	// confirmRound bounds one WAIT. It is shorter than hungAfter, so that a replica that is behind does not look like a primary that hangs.
	confirmRound = 250 * time.Millisecond

	// markerTTL is how long the marker key is kept.
	markerTTL = time.Minute
)

// ErrNotReached means that writes were not confirmed in time.
var ErrNotReached = errors.New("the durability level was not reached")

// Confirmation tells whether the writes of one call have reached the level of its Writer. All callers in the call share it.
type Confirmation struct {
	done chan struct{}
	err  error
}

// Await blocks until the writes are confirmed, or known not to be. It returns ErrNotReached if ctx ends or until has passed before, or if
// another server may be the primary now.
func (c *Confirmation) Await(ctx context.Context, until time.Time) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ErrNotReached
	}
}

// NewDurableWriter is NewWriter for a Writer whose outcomes have a Confirmation. OnReplicas waits for the given number of replicas.
func (c *Cache) NewDurableWriter(mayDirty func() bool, level Level, replicas int) *Writer {
	return c.startWriter(func(limit int) *Writer {
		w := c.newWriter(mayDirty, limit)
		w.level, w.replicas, w.servers = level, replicas, make(map[*redis.Client]*durableServer)
		return w
	})
}

// durableServer is a primary to which a durable Writer writes.
type durableServer struct {
	client *redis.Client
	slots  chan struct{} // one for each call that waits for its confirmation
	behind bool          // the last call got no slot
}

// take takes a slot. It returns false if none gets free.
func (s *durableServer) take() bool {
	select {
	case s.slots <- struct{}{}:
		s.behind = false
		return true
	default:
	}
	if s.behind {
		return false
	}
	timer := time.NewTimer(confirmPatience)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-timer.C:
		s.behind = true
		return false
	}
}

// runDurably is application.run on connections that belong to the call until its writes are confirmed, until the time given. WAIT covers
// the writes of its own connection, so no promoted server and no restarted one can confirm them. Operations that a server has refused
// because it is not their master are sent again to the server that is, as resendHook does. It returns the confirmations that come later.
func (w *Writer) runDurably(a *application, until time.Time, callers int) (reached bool, confirmations []*Confirmation) {
	var refused *refusal
	a.ctx, refused = withRefusal(a.ctx)
	for tries := 0; ; tries++ {
		answered, later := w.runParts(a, until, callers)
		reached, confirmations = reached || answered, append(confirmations, later...)
		hook := refused.hook.Swap(nil)
		if hook == nil || time.Now().After(until) {
			return reached, confirmations
		}
		again := a.refused(hook)
		if len(again.writes) == 0 || !hook.wait(a.ctx, tries) {
			return reached, confirmations
		}
		a = again
	}
}

// refused returns the part of a call that may be sent again.
func (a *application) refused(hook *resendHook) *application {
	again := &application{ctx: a.ctx, cache: a.cache, mayDirty: a.mayDirty}
	for i, o := range a.outcomes {
		if hook.resend(o.Err) {
			again.add(a.writes[i], o)
		}
	}
	return again
}

// runParts runs the part of a call for each server.
func (w *Writer) runParts(a *application, until time.Time, callers int) (reached bool, confirmations []*Confirmation) {
	parts := w.byServer(a)
	var group sync.WaitGroup
	answers := make([]bool, len(parts))
	later := make([]*Confirmation, len(parts))
	for i := range parts[min(1, len(parts)):] {
		group.Go(func() { answers[i+1], later[i+1] = w.runOn(&parts[i+1], until, callers) })
	}
	for i := range parts[:min(1, len(parts))] {
		answers[i], later[i] = w.runOn(&parts[i], until, callers)
	}
	group.Wait()
	for i, answer := range answers {
		reached = reached || answer
		if later[i] != nil {
			confirmations = append(confirmations, later[i])
		}
	}
	return reached || len(a.writes) == 0, confirmations
}

// answerConfirmed answers a batch once its writes are confirmed, so that each caller wakes up once; after usualConfirmation each waits on
// its own. It does not block.
func (w *Writer) answerConfirmed(batch []*request, confirmations []*Confirmation) {
	w.dequeue(batch)
	batch = slices.Clone(batch) // the caller uses it again
	w.confirming.Go(func() {
		timer := time.NewTimer(usualConfirmation)
		defer timer.Stop()
		for _, c := range confirmations {
			select {
			case <-c.done:
				continue
			case <-timer.C:
			}
			break
		}
		for _, r := range batch {
			close(r.done)
		}
	})
}

// durablePart is the part of a call for one server.
type durablePart struct {
	*application

	server *durableServer
}

// byServer divides a call by the servers of its keys, and fails the operations whose server is unknown.
func (w *Writer) byServer(a *application) []durablePart {
	if client, ok := w.cache.client.(*redis.Client); ok {
		if len(a.writes) == 0 {
			return nil
		}
		return []durablePart{{a, w.server(client)}}
	}
	cluster, ok := w.cache.client.(*redis.ClusterClient)
	var parts []durablePart
	for i, write := range a.writes {
		if !ok {
			a.outcomes[i].Err = unsupported()
			continue
		}
		client, err := cluster.MasterForKey(a.ctx, w.cache.metaKey(w.cache.Shard(write.Key)))
		if err != nil {
			*a.outcomes[i] = Outcome{Err: Unapplied(err)}
			continue
		}
		server, at := w.server(client), 0
		for at < len(parts) && parts[at].server != server {
			at++
		}
		if at == len(parts) {
			parts = append(parts, durablePart{&application{ctx: a.ctx, cache: a.cache, mayDirty: a.mayDirty}, server})
		}
		parts[at].add(write, a.outcomes[i])
	}
	return parts
}

// server returns the server of a client. Only run calls it.
func (w *Writer) server(client *redis.Client) *durableServer {
	s := w.servers[client]
	if s == nil {
		s = &durableServer{client: client, slots: make(chan struct{}, maxConfirming)}
		w.servers[client] = s
	}
	return s
}

// runOn runs a part of a call on a connection of its own. It returns when the server has answered the operations; their confirmation comes
// later; it is nil if there is nothing to confirm.
func (w *Writer) runOn(p *durablePart, until time.Time, callers int) (reached bool, later *Confirmation) {
	if !p.server.take() {
		p.fail(behind(w.level))
		return true, nil
	}
	conn := p.server.client.Conn()
	end := func() {
		_ = conn.Close() // to the pool, unless it is broken
		<-p.server.slots
	}
	waits, err := w.learn(p.ctx, conn)
	if err != nil {
		p.fail(Unapplied(err))
		end()
		return isReply(err), nil
	}
	if !waits.possible {
		p.fail(unsupported())
		end()
		return true, nil
	}
	p.client = conn
	reached = p.run()
	c, marker := w.confirmation(p.application)
	if c == nil {
		end()
		return reached, nil
	}
	waiting := int64(min(callers, len(p.writes)))
	w.awaiting.Add(waiting)
	w.confirming.Go(func() { //nolint:contextcheck // the callers have different contexts, and until bounds it
		c.err = w.confirm(conn, waits, marker, until)
		end()
		w.awaiting.Add(-waiting)
		close(c.done)
	})
	return reached, c
}

func (a *application) fail(problem *counter.Error) {
	for _, o := range a.outcomes {
		*o = Outcome{Err: problem}
	}
}

// confirmation gives the outcomes of writes that were applied, now or earlier, a Confirmation; it is nil if there are none. It returns a
// marker key if the call may not have written for one of them: then a marker must be written, since WAIT covers only what the connection
// has written.
func (w *Writer) confirmation(a *application) (c *Confirmation, marker string) {
	for i, o := range a.outcomes {
		if o.Err != nil || o.Cold || a.writes[i].Kind == counter.Get {
			continue
		}
		if c == nil {
			c = &Confirmation{done: make(chan struct{})}
		}
		o.Confirmation = c
		if o.Replayed || !o.Exists { // step: marker
			marker = w.cache.tag(w.cache.Shard(a.writes[i].Key)) + ":wait"
		}
	}
	return c, marker
}

// confirm blocks until the connection's writes have reached the level, at most until the time given.
func (w *Writer) confirm(conn *redis.Conn, by waits, marker string, until time.Time) error {
	if marker != "" {
		ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
		defer cancel()
		ctx, _ = withRefusal(ctx) // another server does not have the write
		if err := conn.Set(ctx, marker, "1", markerTTL).Err(); err != nil {
			return errors.Join(ErrNotReached, err)
		}
	}
	if by.always {
		return nil // the file was flushed to disk before the answer
	}
	for w.stopping.Err() == nil {
		left := time.Until(until)
		if left <= 0 {
			break
		}
		reached, err := w.wait(conn, max(min(left, confirmRound), time.Millisecond))
		if err != nil {
			return errors.Join(ErrNotReached, err)
		}
		if reached {
			return nil
		}
	}
	return ErrNotReached
}

// wait is one WAIT or WAITAOF of up to d.
func (w *Writer) wait(conn *redis.Conn, d time.Duration) (reached bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), d+ioTimeout)
	defer cancel()
	if w.level == OnReplicas {
		replicas, err := conn.Wait(ctx, w.replicas, d).Result()
		return replicas >= int64(w.replicas), err // step: replicas
	}
	both, err := conn.WaitAOF(ctx, 1, 0, d).Result()
	return len(both) > 0 && both[0] > 0, err
}

// waits is how a server can confirm writes.
type waits struct {
	possible bool
	always   bool // the append-only file is flushed to disk before each answer, so there is nothing to wait for
}

// learn finds out how the server of a connection confirms writes. OnDisk asks it before each call, because its settings may change;
// compared with a flush to disk, that costs nothing.
func (w *Writer) learn(ctx context.Context, conn *redis.Conn) (waits, error) {
	if w.level == OnReplicas {
		return waits{possible: true}, nil
	}
	return diskWaits(ctx, conn)
}

// diskWaits finds out how a server confirms that writes are on disk.
func diskWaits(ctx context.Context, client redis.Cmdable) (waits, error) {
	text, err := client.Info(ctx, "server").Result()
	if err != nil {
		return waits{}, err
	}
	// A server that hides its settings may still have an append-only file: WAITAOF shows it.
	settings, err := client.ConfigGet(ctx, "append*").Result()
	on := settings["appendonly"] == "yes"
	always := err == nil && on && settings["appendfsync"] == "always"
	info := ParseInfo(text)
	return waits{possible: always || info.AtLeast(7, 2) && (err != nil || on), always: always}, nil
}

// ConfirmsDisk reports whether a server can confirm that writes are on its disk.
func ConfirmsDisk(ctx context.Context, client redis.Cmdable) (bool, error) {
	w, err := diskWaits(ctx, client)
	return w.possible, err
}

// behind returns the error for operations that were not sent because too many earlier calls wait for their confirmation.
func behind(level Level) *counter.Error {
	detail := "the replicas of Redis are away or behind, so the operation was not sent and not applied"
	if level == OnDisk {
		detail = "the disk of Redis is behind, so the operation was not sent and not applied"
	}
	return notNow(counter.CodeCacheUnavailable, nil, detail)
}

// unsupported returns the error for operations that were not sent because the server cannot confirm the level.
func unsupported() *counter.Error {
	return &counter.Error{
		Code:   counter.CodeUnsupportedDurability,
		Detail: "this Redis does not support this durability: disk needs appendonly with appendfsync always, or Redis 7.2",
	}
}
