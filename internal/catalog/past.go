package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// FutureError is the error of a time that has not come.
type FutureError struct {
	Now time.Time // by the clock of Redis
}

func (e *FutureError) Error() string { return "the time is in the future: it is " + TimeText(e.Now) }

// At returns the state of a counter at a time: that after its last operation until then, whether or not Postgres has the operation. The
// result's Deleted says that the counter did not exist; it has no operation and no origin.
//
// The error is a *FutureError for a time in the future. Every other error is a *counter.Error, with CodeNotFound if the counter has no
// history, or if the time is before its history. It blocks for a bounded time: for a slot, for Redis and for Postgres.
func (c *Catalog) At(ctx context.Context, key counter.Key, at time.Time) (Recorded, error) {
	leave, err := c.gate.enter(ctx)
	if err != nil {
		return Recorded{}, err
	}
	defer leave()
	now, err := c.Cache.Now(ctx) // the clock of the records
	if err != nil {
		return Recorded{}, redisError(err)
	}
	if at.UnixMilli() > now {
		return Recorded{}, &FutureError{Now: time.UnixMilli(now).UTC()}
	}
	if !c.Recorded(key) {
		return Recorded{}, &counter.Error{Code: counter.CodeNotFound, Detail: "the counter has no history (AFTERWRITE_HISTORY)"}
	}
	// Redis first: what a flush moves to Postgres meanwhile is found there.
	pending, err := c.pendingOnBase(ctx, key)
	if err != nil {
		return Recorded{}, err
	}
	past, err := c.Store.StateAt(ctx, key, at)
	if err != nil {
		return Recorded{}, postgresError(err)
	}
	then := lastUntil(pending.Records, at)
	switch stored := past.Record; {
	case stored != nil && (then == nil || then.Version <= stored.Version):
		return Recorded{Record: *stored, Synced: true}, nil
	case then != nil:
		return Recorded{Record: *then}, nil
	case past.Earliest.IsZero() && pending.Records != nil:
		past.Earliest = pending.Records.All[0].At
	}
	return Recorded{}, beforeHistory(past.Earliest)
}

// lastUntil returns the last record until a time, or nil.
func lastUntil(records *cache.Records, at time.Time) *counter.Record {
	if records == nil {
		return nil
	}
	var last *counter.Record
	for i := range records.All {
		if r := &records.All[i]; !r.At.After(at) {
			last = r
		}
	}
	return last
}

// beforeHistory is the error of a time before the history. earliest: when that begins; zero: there is none.
func beforeHistory(earliest time.Time) error {
	detail := "the counter has no operation in its history"
	if !earliest.IsZero() {
		detail = "the history of the counter begins later, at " + TimeText(earliest)
	}
	return &counter.Error{Code: counter.CodeNotFound, Detail: detail}
}

// pendingOnBase returns the entry of key and its records. If their base is unknown, it has the write path add it first.
func (c *Catalog) pendingOnBase(ctx context.Context, key counter.Key) (cache.Entry, error) {
	pending, err := c.pending(ctx, key)
	if err == nil && pending.BaseUnknown {
		c.Counters.Do(ctx, []counter.Operation{{Key: key, Kind: counter.Get}}, writepath.Options{})
		pending, err = c.pending(ctx, key)
	}
	if err == nil && pending.BaseUnknown {
		err = postgresError(errNoBase)
	}
	return pending, err
}

var errNoBase = errors.New("the value before the counter's unflushed operations is not known yet")

// TimeText formats a time with the precision of records.
func TimeText(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
