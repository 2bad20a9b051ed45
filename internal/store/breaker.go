package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	// failuresToOpen is the number of consecutive outage errors that open the breaker. A single one may be a stale connection;
	// each further one can cost a caller the whole statement timeout.
	failuresToOpen = 3
	// openFor, plus up to openJitter, is the time between two probes while Postgres is down. Each process chooses its jitter once,
	// so that many processes do not probe a starting Postgres at the same time.
	openFor    = time.Second
	openJitter = 250 * time.Millisecond
	// undetectedFor is how long a successful Ping does not end an outage that Ping cannot detect. It must be longer than the
	// time between two calls of a busy process: tasks are retried within 30 s.
	undetectedFor = time.Minute
)

// errUncounted makes gobreaker ignore the success of a Ping.
var errUncounted = errors.New("a probe succeeded")

// breaker protects callers from a Postgres that does not answer. While it is open, calls fail at once. After openFor it admits one
// call as a probe, which closes it or opens it again.
type breaker struct {
	inner  *gobreaker.CircuitBreaker[struct{}]
	logger *slog.Logger
	// subject begins the messages of the log, and meanwhile says what happens to calls while the breaker is open.
	subject, meanwhile string
	opened             func(error)             // called, with the last failure, each time it opens; nil: nothing to call
	last               atomic.Pointer[failure] // nil: no failure is known

	began   time.Time
	heard   atomic.Int64 // when a call last showed whether Postgres works, ns after began
	waiting atomic.Int64 // calls in progress
}

// failure is the last call that failed because of an outage.
type failure struct {
	err   error
	at    time.Time
	probe bool
}

func newBreaker(logger *slog.Logger) *breaker {
	b := &breaker{logger: logger, subject: "postgres", meanwhile: "calls fail at once", began: time.Now()}
	b.heard.Store(math.MinInt64 / 2) // never
	b.inner = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "postgres",
		MaxRequests: 1,
		Timeout:     openFor + rand.N(openJitter), //nolint:gosec // jitter needs no secret
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresToOpen },
		IsExcluded:  func(err error) bool { return saysNothing(err) || errors.Is(err, errUncounted) },
		// A Postgres that refuses a row or reports a deadlock is up.
		IsSuccessful:  func(err error) bool { return !isOutage(err) },
		OnStateChange: b.changed,
	})
	return b
}

// run calls call, or returns ErrUnavailable without calling it if the breaker is open.
func (b *breaker) run(call func() error) error {
	return b.execute(func() error {
		b.waiting.Add(1)
		defer b.waiting.Add(-1)
		err := call()
		b.note(err, false)
		return err
	})
}

// probe is run for a Ping. Its failure counts like any other. Its success does not reset the number of consecutive failures, and does
// not end an outage that Ping cannot detect.
func (b *breaker) probe(call func() error) error {
	closed := b.inner.State() == gobreaker.StateClosed
	err := b.execute(func() error {
		err := call()
		b.note(err, true)
		if err == nil && (closed || b.last.Load() != nil) {
			return errUncounted
		}
		return err
	})
	if errors.Is(err, errUncounted) {
		return nil
	}
	return err
}

func (b *breaker) execute(call func() error) error {
	_, err := b.inner.Execute(func() (struct{}, error) { return struct{}{}, call() })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return err
}

// note records what a call showed about Postgres.
func (b *breaker) note(err error, probe bool) {
	if saysNothing(err) {
		return
	}
	b.heard.Store(int64(time.Since(b.began)))
	last := b.last.Load()
	switch {
	case isOutage(err):
		b.last.Store(&failure{err: err, at: time.Now(), probe: probe})
	case last != nil && probe && !last.probe && undetected(last.err) && time.Since(last.at) < undetectedFor:
	default:
		b.last.CompareAndSwap(last, nil)
	}
}

// undetected reports whether a Ping may succeed although other calls fail with err: if disk or memory is full, the disk fails, or the
// server has an internal error.
func undetected(err error) bool {
	code := sqlState(err)
	return strings.HasPrefix(code, "53") || strings.HasPrefix(code, "58") || strings.HasPrefix(code, "XX")
}

// quiet returns the time since a call last showed whether Postgres works; 0 while a call is in progress.
func (b *breaker) quiet() time.Duration {
	if b.waiting.Load() > 0 {
		return 0
	}
	return time.Since(b.began) - time.Duration(b.heard.Load())
}

// saysNothing reports whether err shows nothing about Postgres: the caller gave up, or the error is about the audit log, which the
// counters do not need.
func saysNothing(err error) bool { return Classify(err) == Canceled || isAboutActions(err) }

// isOutage reports whether further calls would probably fail like the one that returned err.
func isOutage(err error) bool {
	class := Classify(err)
	return class == Outage || class == Operator
}

func (b *breaker) available() bool { return b.inner.State() != gobreaker.StateOpen }

func (b *breaker) up() bool { return b.last.Load() == nil && b.inner.State() == gobreaker.StateClosed }

// changed logs the start and the end of an outage, and at debug level the probes in between. gobreaker holds its lock during the
// call, so it must not call the breaker.
func (b *breaker) changed(_ string, from, to gobreaker.State) {
	level, message := slog.LevelDebug, b.subject+" breaker"
	attrs := []slog.Attr{slog.String("from", from.String()), slog.String("to", to.String())}
	class := None
	if last := b.last.Load(); last != nil {
		if to == gobreaker.StateOpen && b.opened != nil {
			b.opened(last.err)
		}
		class = Classify(last.err)
		attrs = append(attrs, slog.String("class", class.String()), slog.Any("error", last.err))
	}
	switch {
	case to == gobreaker.StateClosed:
		level, message = slog.LevelInfo, b.subject+" is available again"
	case from == gobreaker.StateClosed && class == Operator:
		level, message = slog.LevelError, b.subject+" has a wrong schema or permission: "+b.meanwhile+" until a probe succeeds"
	case from == gobreaker.StateClosed:
		level, message = slog.LevelWarn, b.subject+" is unavailable: "+b.meanwhile+" until a probe succeeds"
	}
	b.logger.LogAttrs(context.Background(), level, message, attrs...)
}
