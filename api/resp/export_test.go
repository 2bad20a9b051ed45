package resp

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Limits are the bounds that tests change; 0 leaves one as it is.
type Limits struct {
	Connections                        int
	Idle, Login, Command, Write, Grace time.Duration
	Wait                               time.Duration
}

// WithLimits changes bounds of a server before it serves.
func WithLimits(l Limits) func(s *Server) {
	set := func(to *time.Duration, d time.Duration) {
		if d > 0 {
			*to = d
		}
	}
	return func(s *Server) {
		if l.Connections > 0 {
			s.limits.connections = l.Connections
		}
		set(&s.limits.idle, l.Idle)
		set(&s.limits.login, l.Login)
		set(&s.limits.command, l.Command)
		set(&s.limits.write, l.Write)
		set(&s.limits.grace, l.Grace)
		set(&s.limits.wait, l.Wait)
	}
}

// TakeBudget takes the whole budget for large commands until the returned function is called. It reports whether nobody had any of it.
func (s *Server) TakeBudget() (giveBack func(), ok bool) {
	if !s.large.TryAcquire(largeBudgetBytes) {
		return func() {}, false
	}
	return func() { s.large.Release(largeBudgetBytes) }, true
}

// Connect adds a connection, or refuses it, as at an accept.
func (s *Server) Connect(ctx context.Context, conn net.Conn) (admitted bool) {
	return s.connect(ctx, conn) != nil
}

// Parse returns the commands in the input, which arrives in pieces of these sizes, repeatedly, and the error that ends it.
func Parse(input []byte, pieces ...int) (commands [][]string, err error) {
	p := parser{maxArguments: maxArguments}
	budget := largeBudgetBytes
	take := func(n int) bool {
		budget -= n
		return budget >= 0
	}
	for i := 0; len(input) > 0; i++ {
		room, err := p.room(take)
		if err != nil {
			return commands, err
		}
		n := copy(room[:min(len(room), max(1, pieces[i%len(pieces)]))], input)
		input = input[n:]
		p.received(n)
		for {
			args, more, err := p.next()
			if err != nil {
				return commands, err
			}
			if more {
				break
			}
			command := make([]string, len(args))
			for i, arg := range args {
				command[i] = string(arg)
			}
			if len(command) > 0 {
				commands = append(commands, command)
			}
		}
		p.shrink(func(n int) { budget += n })
	}
	p.release(func(n int) { budget += n })
	if budget != largeBudgetBytes {
		panic("the budget does not add up")
	}
	return commands, nil
}

// The bounds that tests need.
const (
	MaxArgumentBytes = maxArgumentBytes
	MaxArguments     = maxArguments
	MaxOperations    = maxOperations
	MaxUnknown       = maxUnknown
)

// Answer returns the answers to input that arrives in one piece.
func Answer(counters Counters, input []byte) []byte {
	s := New(counters, Options{})
	client, server := net.Pipe()
	c := newConnection(context.Background(), s, server)
	var answers []byte
	var reading sync.WaitGroup
	reading.Go(func() { answers, _ = io.ReadAll(client) })
	for len(input) > 0 && !c.closing {
		room, err := c.parser.room(c.take)
		if err != nil {
			break
		}
		n := copy(room, input)
		input = input[n:]
		c.parser.received(n)
		c.pipeline()
		_ = c.send()
	}
	_ = server.Close()
	reading.Wait()
	return answers
}
