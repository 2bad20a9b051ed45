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
	// failuresToOpen is how many outage errors in a row open the breaker. One may be a connection that had gone stale;
	// each further one can cost a caller the whole statement timeout.
	failuresToOpen = 3
	// openFor, plus up to openJitter, is the time between two probes while Postgres is down. Each process draws its
	// jitter once, so that many processes do not probe a Postgres that is starting up at the same moments.
	openFor    = time.Second
	openJitter = 250 * time.Millisecond
	// settle is how long a probe that succeeds does not outweigh a call that failed for what probes do not notice. It is longer
	// than a process with work to do goes without a call: tasks are tried again within 30 s.
	settle = time.Minute
)

// errUncounted is what a probe says to gobreaker when its success is not to count.
var errUncounted = errors.New("a probe succeeded")

// breaker keeps calls from a Postgres that does not answer. Open, it fails them at once; after openFor it lets one through,
// the probe, whose outcome closes it or opens it again.
type breaker struct {
	inner  *gobreaker.CircuitBreaker[struct{}]
	logger *slog.Logger
	last   atomic.Pointer[failure] // nil: Postgres is fine, as far as is known

	began   time.Time
	heard   atomic.Int64 // when a call last said how Postgres is, ns after began
	waiting atomic.Int64 // calls that are under way
}

// failure is the last call that met an outage.
type failure struct {
	err   error
	at    time.Time
	probe bool
}

func newBreaker(logger *slog.Logger) *breaker {
	b := &breaker{logger: logger, began: time.Now()}
	b.heard.Store(math.MinInt64 / 2) // never
	b.inner = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "postgres",
		MaxRequests: 1,
		Timeout:     openFor + rand.N(openJitter), //nolint:gosec // jitter needs no secret
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresToOpen },
		IsExcluded:  func(err error) bool { return saysNothing(err) || errors.Is(err, errUncounted) },
		// That Postgres refuses a row, or met a deadlock, proves that it is up.
		IsSuccessful:  func(err error) bool { return !isOutage(err) },
		OnStateChange: b.changed,
	})
	return b
}

// run calls call, or returns ErrUnavailable without calling it.
func (b *breaker) run(call func() error) error {
	return b.execute(func() error {
		b.waiting.Add(1)
		defer b.waiting.Add(-1)
		err := call()
		b.note(err, false)
		return err
	})
}

// probe is run for a call that nobody needs the outcome of. Its failure is as bad as any other. Its success ends an outage only
// where no call says otherwise, and never makes the count of failed calls begin anew.
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

// note keeps what a call says about Postgres.
func (b *breaker) note(err error, probe bool) {
	if saysNothing(err) {
		return
	}
	b.heard.Store(int64(time.Since(b.began)))
	last := b.last.Load()
	switch {
	case isOutage(err):
		b.last.Store(&failure{err: err, at: time.Now(), probe: probe})
	case last != nil && probe && !last.probe && unnoticed(last.err) && time.Since(last.at) < settle:
	default:
		b.last.CompareAndSwap(last, nil)
	}
}

// unnoticed reports that err may be what a probe does not meet: a full disk or too little memory, an error of the disk, or
// one inside the server.
func unnoticed(err error) bool {
	code := sqlState(err)
	return strings.HasPrefix(code, "53") || strings.HasPrefix(code, "58") || strings.HasPrefix(code, "XX")
}

// quiet returns for how long no call has said how Postgres is; 0 while one is under way, which will.
func (b *breaker) quiet() time.Duration {
	if b.waiting.Load() > 0 {
		return 0
	}
	return time.Since(b.began) - time.Duration(b.heard.Load())
}

// saysNothing reports that err tells neither good nor bad of Postgres: a caller that left, or the table of actions, which the
// counters do not need.
func saysNothing(err error) bool { return Classify(err) == Canceled || isAboutActions(err) }

// isOutage reports that Postgres is not fit to be asked again.
func isOutage(err error) bool {
	class := Classify(err)
	return class == Outage || class == Operator
}

func (b *breaker) available() bool { return b.inner.State() != gobreaker.StateOpen }

func (b *breaker) up() bool { return b.last.Load() == nil && b.inner.State() == gobreaker.StateClosed }

// changed logs the start and the end of an outage; the probes in between only for debugging. The breaker's lock is held, so
// it must not ask the breaker anything.
func (b *breaker) changed(_ string, from, to gobreaker.State) {
	level, message := slog.LevelDebug, "postgres breaker"
	attrs := []slog.Attr{slog.String("from", from.String()), slog.String("to", to.String())}
	class := None
	if last := b.last.Load(); last != nil {
		class = Classify(last.err)
		attrs = append(attrs, slog.String("class", class.String()), slog.Any("error", last.err))
	}
	switch {
	case to == gobreaker.StateClosed:
		level, message = slog.LevelInfo, "postgres is available again"
	case from == gobreaker.StateClosed && class == Operator:
		level, message = slog.LevelError, "postgres has a wrong schema or permission: calls fail at once until a probe succeeds"
	case from == gobreaker.StateClosed:
		level, message = slog.LevelWarn, "postgres is unavailable: calls fail at once until a probe succeeds"
	}
	b.logger.LogAttrs(context.Background(), level, message, attrs...)
}
