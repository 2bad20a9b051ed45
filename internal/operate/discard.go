package operate

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Discarded says what Discard made of the counter.
type Discarded struct {
	Now Stored // what Postgres has, and the next read finds

	// Refused is why Postgres did not take the new version; nil nearly always. The counter is at Postgres's value
	// anyway, but a flush that began earlier could still write what was discarded, if Postgres takes that now.
	Refused error

	// Written is true when the counter was written after it had been returned to Postgres's value. What was written is
	// kept, and the key is due for a flush.
	Written bool
}

// Discardable returns an *Error with PostgresAway if Postgres's state is unknown, which a discard would return to.
func (d DeadLetter) Discardable() error {
	if d.PostgresErr == nil {
		return nil
	}
	return &Error{
		Reason: PostgresAway, Key: d.Key, Err: d.PostgresErr,
		Detail: "Postgres did not answer, so it is not known what to return to; nothing was discarded",
	}
}

// Discard gives up what Redis has of a dead letter, and returns the counter to what Postgres has. d is what Get returned and
// the operator was shown. If the counter was written since, is not dead any more, or Postgres's state is unknown, it does
// nothing and returns an *Error with Changed, NotDead or PostgresAway.
//
// A discard is a write like any other, so that no flush under way can restore what it dropped: the entry becomes
// Postgres's value at a version of its own, Postgres takes that, and only then the key leaves Redis (see
// docs/decisions/0010-discard-is-a-write.md). If it ends in between, it returns an *Error with StillDead or one of Redis:
// the key is still dead, with Postgres's value, and may be discarded again. It needs no worker. It blocks for some bounded
// calls.
func (s *Service) Discard(ctx context.Context, d DeadLetter) (Discarded, error) {
	if err := d.Discardable(); err != nil {
		return Discarded{}, err
	}
	if d.Redis.State == StateNone || d.Redis.State == StateForeign {
		// There is no version to go on from: whoever removed or overwrote the entry has lost it.
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
		return done, nil // a flush under way has committed the rewound state as well
	case ReasonOf(err) != Changed:
		return done, err
	case done.Refused != nil:
		return done, stillDead(d.Key, done.Refused,
			"it has Postgres's value again, but was written since, and Postgres refuses that value, so it is still dead; read it again")
	}
	done.Written = true
	_, err = s.Redrive(ctx, []counter.Key{d.Key})
	return done, err
}

// rewound is the state that a counter returns to: Postgres's, or a tombstone if it has none, at a version that is higher
// than any that a flush under way may have. On an unknown base, versions count from Postgres's.
func rewound(d DeadLetter) counter.Row {
	version := max(d.Redis.Version, d.Postgres.Version) + 1
	if d.Redis.State == StateUnknownBase {
		version = d.Redis.Version + d.Postgres.Version + 1
	}
	return counter.Row{
		Key: d.Key, Value: d.Postgres.Value, Version: version, Deleted: d.Postgres.State != StateValue,
	}
}

// fence writes row to Postgres, which takes no older version from then on.
func (s *Service) fence(ctx context.Context, row counter.Row) (Discarded, error) {
	done := Discarded{Now: storedRow(row)}
	ahead, err := s.store.Upsert(ctx, []counter.Row{row})
	switch {
	case store.Classify(err) == store.Refused:
		done.Refused = err
	case err != nil:
		return done, stillDead(row.Key, err, "Postgres did not take its value back, so it is still dead; discard it again")
	case len(ahead) > 0 && ahead[0] != row:
		return done, stillDead(row.Key, nil,
			fmt.Sprintf("Postgres has %s meanwhile, so it is still dead; read it again", storedRow(ahead[0])))
	}
	return done, nil
}

// remove deletes the key from Redis, and its retry from Asynq's archive.
func (s *Service) remove(ctx context.Context, shown cache.Entry) error {
	answer, err := s.cache.Remove(ctx, shown)
	if err = discardError(shown.Key, answer, err); err != nil {
		return err
	}
	if err := s.unarchive(ctx, shown.Key); err != nil {
		// The worker's next retry of the key removes it.
		s.logger.Warn("the archived retry of a discarded counter was left", "key", shown.Key, "error", err)
	}
	return nil
}

// discardError turns the answer of a script into an error.
func discardError(key counter.Key, answer cache.Discarded, err error) error {
	switch {
	case err != nil:
		return err
	case answer == cache.DiscardNotDead:
		return notDead(key)
	case answer == cache.DiscardWritten:
		return &Error{Reason: Changed, Key: key, Detail: "it was written meanwhile, and nothing was discarded"}
	}
	return nil
}
