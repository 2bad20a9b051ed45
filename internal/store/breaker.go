package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
)

// breaker keeps calls from a Postgres that does not answer. Open, it fails them at once; after openFor it lets one through,
// the probe, whose outcome closes it or opens it again.
type breaker struct {
	inner  *gobreaker.CircuitBreaker[struct{}]
	logger *slog.Logger
	last   atomic.Pointer[error] // the last call's outage; nil: it was fine
}

func newBreaker(logger *slog.Logger) *breaker {
	b := &breaker{logger: logger}
	b.inner = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "postgres",
		MaxRequests: 1,
		Timeout:     openFor + rand.N(openJitter), //nolint:gosec // jitter needs no secret
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresToOpen },
		// A caller that left says nothing about Postgres, neither good nor bad. Nor does the table of actions about the counters.
		IsExcluded:    func(err error) bool { return Classify(err) == Canceled || isAboutActions(err) },
		IsSuccessful:  b.successful,
		OnStateChange: b.changed,
	})
	return b
}

// run calls call, or returns ErrUnavailable without calling it.
func (b *breaker) run(call func() error) error {
	_, err := b.inner.Execute(func() (struct{}, error) { return struct{}{}, call() })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fmt.Errorf("%w (%w)", ErrUnavailable, err)
	}
	return err
}

func (b *breaker) available() bool { return b.inner.State() != gobreaker.StateOpen }

func (b *breaker) up() bool { return b.last.Load() == nil && b.inner.State() == gobreaker.StateClosed }

// successful reports whether Postgres is fit to be asked again. That it refuses a row, or met a deadlock, proves that it is
// up.
func (b *breaker) successful(err error) bool {
	switch Classify(err) {
	case Outage, Operator:
		b.last.Store(&err)
		return false
	case None, Contended, Refused, Canceled:
	}
	b.last.Store(nil)
	return true
}

// changed logs the start and the end of an outage; the probes in between only for debugging. The breaker's lock is held, so
// it must not ask the breaker anything.
func (b *breaker) changed(_ string, from, to gobreaker.State) {
	level, message := slog.LevelDebug, "postgres breaker"
	attrs := []slog.Attr{slog.String("from", from.String()), slog.String("to", to.String())}
	class := None
	if last := b.last.Load(); last != nil {
		class = Classify(*last)
		attrs = append(attrs, slog.String("class", class.String()), slog.Any("error", *last))
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
