package client

import (
	"context"
	"errors"
	"slices"
	"time"
)

// run sends until ctx is done.
func (b *Batcher) run(ctx context.Context) {
	defer close(b.stopped)
	interval := time.NewTicker(b.options.Interval)
	defer interval.Stop()
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	var p pacer
	for ctx.Err() == nil {
		tick := false
		select {
		case <-ctx.Done():
			return
		case <-interval.C:
			tick = true
		case <-b.wake:
		case <-pause.C:
		}
		for ctx.Err() == nil {
			batch := b.next(&p, tick)
			if len(batch) == 0 {
				break
			}
			tick = false // what came since then waits for the next one
			b.deliver(ctx, &p, batch)
		}
		pause.Reset(b.paused(&p))
	}
}

// pacer says when the next request may be sent. It belongs to the goroutine that sends.
type pacer struct {
	failures   int       // requests in a row that failed as a whole
	retries    int       // rounds in a row after which sums failed alone
	allAfter   time.Time // no request before this
	retryAfter time.Time // no repetition before this
}

// next returns the entries for the next request, or none if there is nothing to send yet.
//
// While requests fail as a whole, only sums that were sent before are sent: the others keep adding up.
func (b *Batcher) next(p *pacer, tick bool) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.sums
	if tick || len(s.ready) >= b.options.MaxBatch || len(s.keys) >= b.options.MaxKeys {
		s.due = len(s.ready)
	}
	now := time.Now()
	if now.Before(p.allAfter) {
		return nil
	}
	if len(s.retry) > 0 && !now.Before(p.retryAfter) {
		return s.again(b.options.MaxBatch)
	}
	if p.failures > 0 && len(s.retry) > 0 {
		return nil
	}
	return s.take(b.options.MaxBatch)
}

// deliver sends the sums of the entries and notes the outcome of each.
func (b *Batcher) deliver(ctx context.Context, p *pacer, batch []*entry) {
	operations := make([]Operation, len(batch))
	for i, e := range batch {
		operations[i] = Operation{Op: "increment", Key: e.key, By: &e.sent, ID: e.id}
	}
	results, err := b.client.batch(ctx, operations, &callOptions{minimal: true, once: true}, 1)
	outcomes := make([]*Error, len(batch))
	for i := range batch {
		switch {
		case err != nil:
			outcomes[i] = asError(err)
		case results[i].Err != nil:
			outcomes[i] = asError(results[i].Err)
		}
	}
	b.pace(p, err, outcomes)
	b.settle(batch, outcomes)
}

// settle notes the outcomes of a request. A sum that is given up is reported before a Flush that waits for it returns.
func (b *Batcher) settle(batch []*entry, outcomes []*Error) {
	givenUp := b.keep(batch, outcomes)
	if len(givenUp) == 0 {
		return
	}
	for _, e := range givenUp {
		b.refuse(e.sum())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range givenUp {
		b.sums.refuse(e)
	}
}

// keep ends the sums that are acknowledged, keeps those to be repeated, and returns the entries of the others.
func (b *Batcher) keep(batch []*entry, outcomes []*Error) (givenUp []*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for i, e := range batch {
		problem := outcomes[i]
		if problem == nil || problem.applied == AppliedYes {
			b.sums.done(e)
			continue
		}
		e.err = problem
		if problem.applied == AppliedUnknown && e.doubt.IsZero() {
			e.doubt = now
		}
		if tooOld := !e.doubt.IsZero() && now.Sub(e.doubt) > b.options.MaxAge; hopeless(problem) || tooOld {
			givenUp = append(givenUp, e)
			continue
		}
		b.sums.retry = append(b.sums.retry, e)
	}
	return givenUp
}

// hopeless reports whether the server refused a sum for good. A wrong API key is not: it is changed on one side after the other. Nor is
// a refusal by a proxy.
func hopeless(e *Error) bool {
	m, known := meanings[e.Code]
	return known && m == refused && e.Code != CodeUnauthorized
}

// pace sets the pauses after a request.
func (b *Batcher) pace(p *pacer, err error, outcomes []*Error) {
	now := time.Now()
	if whole := asError(err); whole != nil && !hopeless(whole) {
		if p.failures++; p.failures == 1 {
			b.options.Logger.Warn("afterwrite: increments are kept and sent again, since a request failed", "error", whole)
		}
		p.allAfter = now.Add(b.backoff(p.failures, whole.RetryAfter))
		return
	}
	if p.failures > 0 {
		b.options.Logger.Info("afterwrite: increments are sent again", "failed_requests", p.failures)
	}
	p.failures, p.allAfter = 0, time.Time{}
	if p.retries++; !slices.ContainsFunc(outcomes, func(e *Error) bool { return e != nil && !hopeless(e) }) {
		p.retries = 0
	}
	p.retryAfter = now
	if p.retries > 0 {
		p.retryAfter = now.Add(b.backoff(p.retries, 0))
	}
}

// backoff returns the pause after n failures in a row.
func (b *Batcher) backoff(n int, retryAfter time.Duration) time.Duration {
	return min(retryAfter, b.client.options.MaxRetryAfter) + jitter(n)
}

// paused returns how long run may sleep, if the interval is longer.
func (b *Batcher) paused(p *pacer) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := p.allAfter
	switch {
	case len(b.sums.retry) > 0 && p.retryAfter.After(next):
		next = p.retryAfter
	case len(b.sums.retry) == 0 && b.sums.due == 0:
		return time.Hour // an Add wakes it
	}
	return time.Until(next)
}

// refuse reports a sum that is given up.
func (b *Batcher) refuse(sum Sum) {
	if b.options.OnRefused != nil {
		b.options.OnRefused(sum)
		return
	}
	b.options.Logger.Error("afterwrite: increments are given up",
		"key", sum.Key, "by", sum.By, "id", sum.ID, "applied", sum.Applied.String(), "error", sum.Err)
}

// asError returns err, which is nil or an *Error.
func asError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}
