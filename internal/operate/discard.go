package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Discarded is the result of Discard.
type Discarded struct {
	Now Stored // the state in Postgres after the discard, without later writes

	// Refused is the error if Postgres refused the new version; it is usually nil. The counter has Postgres's value
	// anyway. But a flush that began earlier may still write what was discarded, if Postgres accepts that now.
	Refused error

	// Written reports whether the counter was written after it had been reset to Postgres's value. The write is kept, and
	// the key is due for a flush.
	Written bool
}

// Discardable returns an *Error with PostgresAway if the state in Postgres is unknown, because a discard resets the counter to it.
func (d DeadLetter) Discardable() error {
	if d.PostgresErr == nil {
		return nil
	}
	return &Error{
		Reason: PostgresAway, Key: d.Key, Err: d.PostgresErr,
		Detail: "Postgres did not answer, so the state to return to is not known; nothing was discarded",
	}
}

// Discard gives up the unsynced writes of a dead letter, and resets the counter to the state in Postgres. d is the result of Get
// that the operator was shown. If the counter was written since, is not dead any more, or its state in Postgres is unknown,
// Discard does nothing and returns an *Error with Changed, NotDead or PostgresAway.
//
// A discard is a write, so that no flush in progress can restore what it dropped (see docs/decisions/0010-discard-is-a-write.md).
// It sets the entry to Postgres's value at a new version, writes that version to Postgres, and then deletes the key from Redis. If
// it is interrupted, it returns an *Error with StillDead or an error of Redis: the key is still dead, with Postgres's value, and
// may be discarded again. Discard needs no worker. It blocks for a few bounded calls.
func (s *Service) Discard(ctx context.Context, d DeadLetter) (Discarded, error) {
	if err := d.Discardable(); err != nil {
		return Discarded{}, err
	}
	if d.Redis.State == StateNone || d.Redis.State == StateForeign {
		// The entry was deleted or overwritten by hand, so there is no version to continue from.
		return Discarded{Now: d.Postgres}, s.remove(ctx, d.entry)
	}
	row := rewound(d)
	answer, err := s.cache.Rewind(ctx, d.entry, row)
	if err = discardError(d.Key, answer, err); err != nil {
		return Discarded{}, err
	}
	done, err := s.fence(ctx, row)
	if err != nil {
		return done, err
	}
	if done.Refused != nil {
		done.Now = d.Postgres
	}
	err = s.remove(ctx, cache.Entry{Row: row})
	switch {
	case ReasonOf(err) == NotDead:
		return done, nil // a flush in progress has committed the rewound state too
	case ReasonOf(err) != Changed:
		return done, err
	case done.Refused != nil:
		return done, stillDead(d.Key, done.Refused,
			"the counter was reset to Postgres's value, but written since, and Postgres refuses it, so it is still dead; read it again")
	}
	done.Written = true
	_, err = s.Redrive(ctx, []counter.Key{d.Key})
	return done, err
}

// rewound returns the state to which a counter is reset: Postgres's value, or a tombstone if there is no row. Its version is
// higher than that of any flush in progress. On an unknown base, Redis counts versions from Postgres's.
func rewound(d DeadLetter) counter.Row {
	version := max(d.Redis.Version, d.Postgres.Version) + 1
	if d.Redis.State == StateUnknownBase {
		version = d.Redis.Version + d.Postgres.Version + 1
	}
	return counter.Row{
		Key: d.Key, Value: d.Postgres.Value, Version: version, Deleted: d.Postgres.State != StateValue,
	}
}

// fence writes row to Postgres, and to its column if it is mapped: a flush may have written both since the dead letter was read. After
// that, Postgres accepts no older version.
func (s *Service) fence(ctx context.Context, row counter.Row) (Discarded, error) {
	done := Discarded{Now: storedRow(row)}
	upserted, err := s.upsert(ctx, row)
	if err == nil && len(upserted.Broken) > 0 {
		err = upserted.Broken[0].Err
	}
	switch {
	case store.Classify(err) == store.Refused:
		done.Refused = err
	case err != nil:
		return done, stillDead(row.Key, err,
			"Postgres failed to write its value at the new version, so the counter is still dead; discard it again")
	case len(upserted.Refused) > 0:
		done.Refused = upserted.Refused[0].Err
	case len(upserted.Locked) > 0:
		return done, stillDead(row.Key, nil,
			"another transaction locks its row in Postgres, so the counter is still dead; discard it again when that has ended")
	case len(upserted.Ahead) > 0 && upserted.Ahead[0] != row:
		return done, stillDead(row.Key, nil,
			fmt.Sprintf("Postgres now has %s, so the counter is still dead; read it again", storedRow(upserted.Ahead[0])))
	}
	return done, nil
}

// upsert writes a rewound row, with the record of the discard if the counter has a history.
func (s *Service) upsert(ctx context.Context, row counter.Row) (store.Upserted, error) {
	pending, err := s.cache.Pending(ctx, row.Key)
	if err != nil {
		return store.Upserted{}, err
	}
	if pending.Records == nil {
		return s.store.UpsertUnlocked(ctx, []counter.Row{row})
	}
	later := func(r counter.Record) bool { return r.Version > row.Version } // it was written since
	records := slices.DeleteFunc(slices.Clone(pending.Records.All), later)
	return s.store.UpsertHistory(ctx, []counter.Row{row}, store.History{row.Key: records})
}

// remove deletes the key from Redis, and its retry from Asynq's archive.
func (s *Service) remove(ctx context.Context, shown cache.Entry) error {
	answer, err := s.cache.Remove(ctx, shown)
	if err = discardError(shown.Key, answer, err); err != nil {
		return err
	}
	if err := s.unarchive(ctx, shown.Key); err != nil {
		// The worker's next retry of the key removes the task.
		s.logger.Warn("the archived retry of a discarded counter was not removed", "key", shown.Key, "error", err)
	}
	return nil
}

// discardError turns the reply of a script into an error.
func discardError(key counter.Key, answer cache.Discarded, err error) error {
	switch {
	case err != nil:
		return err
	case answer == cache.DiscardNotDead:
		return notDead(key)
	case answer == cache.DiscardWritten:
		return &Error{Reason: Changed, Key: key, Detail: "the counter was written meanwhile, and nothing was discarded"}
	}
	return nil
}
