package resp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// connection is one client. Only its goroutine uses it, but for stop and abort.
type connection struct {
	net.Conn

	server *Server
	ctx    context.Context //nolint:containedctx // it ends when the server aborts its connections
	end    context.CancelFunc
	id     int64
	opened time.Time

	parser       parser
	out          []byte
	deadline     deadlines
	commandBegan time.Time   // when the first byte of an incomplete command had arrived; zero: there is none
	progress     bool        // a command was finished since the last read
	stopped      atomic.Bool // the server stops: end after what has been received
	closing      bool        // end after the answers in out

	// What the client has set.
	version  int // of the protocol: 2 or 3
	key      *auth.Key
	admitted bool            // it has sent a valid key, or needs none
	origin   *counter.Origin // of its operations; nil: it has no key
	name     string
	library  [2]string // name and version, from CLIENT SETINFO

	now         time.Time // when the present pipeline arrived
	limited     error     // the present pipeline exceeds the rate of the key: the rest is refused, too
	commands    int       // of the present pipeline that are not counted yet
	seen        int       // commands of the present pipeline
	reads       int       // of the present pipeline
	batch       batch     // commands whose answers are not in out yet
	multi       *multi    // nil: no transaction
	idempotency string    // of the present command: see AW.IDEM
	unconfirmed bool      // writes were answered whose place WAIT can no longer confirm
	present     *command
	run         int // consecutive commands like present that are not counted yet
	last        *command
	lastName    string // the name of last as it was sent
}

func newConnection(ctx context.Context, s *Server, conn net.Conn) *connection {
	c := &connection{server: s, Conn: conn, id: s.lastID.Add(1), opened: time.Now()}
	c.ctx, c.end = context.WithCancel(ctx)
	c.reset()
	return c
}

// reset makes the state that of a new connection.
func (c *connection) reset() {
	c.version, c.name, c.multi = 2, "", nil
	c.use(c.server.Keys.Guest())
}

// use gives the connection a key. Until the client is admitted, its commands may have fewer arguments.
func (c *connection) use(key *auth.Key, admitted bool) {
	c.key, c.admitted, c.origin = key, admitted, nil
	if key != nil && key.Name != "" {
		c.origin = &counter.Origin{Caller: key.Name}
	}
	c.parser.maxArguments = maxGuestArguments
	if admitted {
		c.parser.maxArguments = maxArguments
	}
}

// deadlines are the present deadlines of a connection. Setting one for each pipeline would cost as much as parsing it, so they are
// renewed only when they are off.
type deadlines struct{ read, write time.Time }

func (c *connection) take(n int) bool { return c.server.large.TryAcquire(int64(n)) }
func (c *connection) give(n int)      { c.server.large.Release(int64(n)) }

// serve carries out commands until the client or the server ends the connection.
func (c *connection) serve() {
	defer func() {
		if v := recover(); v != nil {
			c.server.recovered(c, v)
		}
		c.server.disconnect(c)
		c.parser.release(c.give)
		c.end()
		_ = c.Close()
	}()
	for !c.closing {
		if err := c.receive(); err != nil {
			if errors.Is(err, errBusy) {
				c.out = appendError(c.out, err.Error())
				_ = c.send()
			}
			break
		}
		c.pipeline()
		if err := c.send(); err != nil {
			return
		}
		c.parser.shrink(c.give)
	}
	c.linger()
}

// receive reads what has arrived, at least one byte.
func (c *connection) receive() error {
	room, err := c.parser.room(c.take)
	if err != nil {
		return err
	}
	c.awaitInput()
	n, err := c.Read(room)
	c.parser.received(n)
	if n > 0 {
		return nil
	}
	return err
}

const (
	// moreTimeout is how long the rest of a pipeline that filled the buffer may take to arrive. It is usually there.
	moreTimeout = time.Millisecond
	// maxReads bounds the reads of one pipeline: 1, 4, 16 and 16 KiB of a new connection hold more than maxOperations.
	maxReads = 4
)

// receiveMore reads more of the present pipeline if it did not fit into the buffer, so that WAIT covers all of it. It reports whether it
// has.
func (c *connection) receiveMore() bool {
	if !c.parser.filled || c.reads >= maxReads {
		return false
	}
	c.reads++
	room, err := c.parser.room(c.take)
	if err != nil {
		return false
	}
	c.deadline.read = time.Now().Add(moreTimeout)
	_ = c.SetReadDeadline(c.deadline.read)
	n, _ := c.Read(room) // an error shows again at the next read
	c.parser.received(n)
	return n > 0
}

// awaitInput sets the deadline for the next read. A command that has begun keeps the deadline of its first byte.
func (c *connection) awaitInput() {
	now, limits := time.Now(), &c.server.limits
	due, slack := now.Add(limits.idle), limits.idle/60
	if c.parser.start < c.parser.end {
		if c.commandBegan.IsZero() || c.progress {
			c.commandBegan = now
		}
		due, slack = c.commandBegan.Add(limits.command), 0
	} else {
		c.commandBegan = time.Time{}
	}
	if login := c.opened.Add(limits.login); !c.admitted && login.Before(due) {
		due, slack = login, 0
	}
	c.progress = false
	if off := due.Sub(c.deadline.read); off >= 0 && off <= slack {
		return
	}
	c.deadline.read = due
	_ = c.SetReadDeadline(due)
	if c.stopped.Load() { // stop may have set its deadline just before
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// pipeline carries out the commands that have arrived, and appends their answers to out.
func (c *connection) pipeline() {
	c.now, c.commands, c.seen, c.reads, c.limited = time.Now(), 0, 0, 1, nil
	c.checkKey()
	for !c.closing {
		args, more, err := c.parser.next()
		if err != nil {
			if c.flush(); !c.closing {
				c.out = appendError(c.out, "ERR "+err.Error())
			}
			c.closing = true
			break
		}
		if more {
			if c.receiveMore() {
				continue
			}
			break
		}
		if len(args) == 0 {
			continue
		}
		c.progress = true
		c.seen++
		c.command(args)
		if c.commands++; c.commands >= maxPipeline {
			c.finishPipeline()
			if c.send() != nil {
				c.closing = true
			}
		}
	}
	c.finishPipeline()
}

// finishPipeline answers the commands of the pipeline, and counts them.
func (c *connection) finishPipeline() {
	c.flush()
	c.count(nil)
	if c.commands == 0 {
		return
	}
	c.server.Keys.Count(c.key, c.commands)
	if c.server.debug {
		c.server.Logger.LogAttrs(c.ctx, slog.LevelDebug, "pipeline", slog.String("protocol", "resp"),
			slog.Int64("connection", c.id), slog.Int("commands", c.commands), slog.Duration("duration", time.Since(c.now)))
	}
	c.commands = 0
}

// count counts the command, and how many like it came before; nil: none more comes.
func (c *connection) count(next *command) {
	if next == c.present {
		c.run++
		return
	}
	if c.present != nil && c.run > 0 {
		c.present.total.Add(float64(c.run))
	}
	c.present, c.run = next, 1
}

// span begins the span of a request to Counters, if tracing is on. The caller calls end.
func (c *connection) span(commands, operations int) (ctx context.Context, end func()) {
	if c.server.tracer == nil {
		return c.ctx, func() {}
	}
	ctx, span := c.server.tracer.Start(c.ctx, "resp pipeline", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.Int("db.operation.batch.size", commands), attribute.Int("afterwrite.operations", operations),
		attribute.Int64("afterwrite.connection", c.id)))
	return ctx, func() { span.End() }
}

// send writes the answers. It blocks while the client does not read.
func (c *connection) send() error {
	if len(c.out) == 0 {
		return nil
	}
	now := time.Now()
	if limit := c.server.limits.write; c.deadline.write.Before(now.Add(limit)) {
		c.deadline.write = now.Add(limit + limit/4)
		_ = c.SetWriteDeadline(c.deadline.write)
	}
	_, err := c.Write(c.out)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.server.metrics.slow.Inc()
	}
	c.out = c.out[:0]
	if cap(c.out) > 2*sendBytes {
		c.out = nil
	}
	return err
}

// sendSome sends the answers if there are many. An error shows again at the end of the pipeline.
func (c *connection) sendSome() {
	if len(c.out) >= sendBytes && c.send() != nil {
		c.closing = true
	}
}

// stop ends the connection when it waits for input. Another goroutine calls it.
func (c *connection) stop() {
	c.stopped.Store(true)
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

// abort ends the connection at once. Another goroutine calls it.
func (c *connection) abort() {
	c.end()
	_ = c.Close()
}

// linger ends this side of the connection and reads on for a moment, so that the client gets the last answers: closing a socket with
// unread input resets it.
func (c *connection) linger() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTimeout))
	var scratch [512]byte
	for range 4096 { // 2 MiB at most
		if _, err := c.Read(scratch[:]); err != nil {
			return
		}
	}
}
