package deadletter

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// ChangedError is returned when a counter is not any more what the operator was shown. Nothing was discarded.
type ChangedError struct{ Key counter.Key }

// Error says what to do.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%q was written meanwhile, and nothing was discarded: look at it again with `afterwrite dead show`", e.Key)
}

// StillDeadError is returned when a discard has given a counter Postgres's value in Redis, and could not finish: it is a dead
// letter with that value. Nothing else has changed, and it may be discarded again.
type StillDeadError struct {
	Key counter.Key
	Why string // and what to do
	Err error  // of Postgres; nil where Postgres did what it was asked
}

// Error says everything.
func (e *StillDeadError) Error() string {
	s := fmt.Sprintf("discard %q: %s", e.Key, e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Postgres's part.
func (e *StillDeadError) Unwrap() error { return e.Err }

// Returned says what a discard has made of the counter.
type Returned struct {
	Now Side // what Postgres has, and the next read finds

	// Refused is why Postgres did not take the new version; nil nearly always. The counter is at Postgres's value all
	// the same, but a flush that has been under way since before could still bring back what was discarded, if Postgres
	// takes that now.
	Refused error

	// Written is true when the counter was written after it had been returned to Postgres's value. What was written is
	// kept, and the key is due for a flush.
	Written bool
}

// Discard gives up what Redis has of a dead letter, and returns the counter to what Postgres has. letter is what the
// operator was shown by Get: where the counter was written since, or is not dead any more, it does nothing and returns a
// *ChangedError or a *NotDeadError.
//
// A discard is a write like any other, so that no flush under way can bring back what it dropped: the entry becomes
// Postgres's value at a version of its own, Postgres takes that, and only then the key leaves Redis (see
// docs/decisions/0010-discard-is-a-write.md). If it ends in between, the key is still dead, with Postgres's value: run it
// again. It needs no worker. It blocks for some bounded calls.
func (b *Box) Discard(ctx context.Context, letter Letter) (Returned, error) {
	shown := letter.entry
	if letter.Redis.State == StateNone || letter.Redis.State == StateForeign {
		// There is no version to go on from: whoever removed or overwrote the entry has lost it.
		return Returned{Now: letter.Postgres}, b.remove(ctx, shown)
	}
	if letter.Postgres.State == StateUnknown {
		return Returned{}, fmt.Errorf("discard %q: %w", letter.Key, store.ErrUnavailable)
	}
	row := rewound(letter)
	done, err := b.cache.Rewind(ctx, shown, row)
	if err = changed(letter.Key, done, err); err != nil {
		return Returned{}, err
	}
	returned, err := b.fence(ctx, row)
	if err != nil {
		return returned, err
	}
	if returned.Refused != nil {
		returned.Now = letter.Postgres
	}
	err = b.remove(ctx, cache.Entry{Row: row})
	if _, settled := errors.AsType[*NotDeadError](err); settled {
		return returned, nil // a flush under way has committed the rewound state as well
	}
	if _, written := errors.AsType[*ChangedError](err); !written {
		return returned, err
	}
	if returned.Refused != nil {
		return returned, &StillDeadError{
			Key: letter.Key, Err: returned.Refused,
			Why: "it has postgres's value again, but was written since, and postgres refuses that value, so it is still dead; " +
				"look at it again",
		}
	}
	returned.Written = true
	_, err = b.Redrive(ctx, []counter.Key{letter.Key})
	return returned, err
}

// rewound is the state that a counter returns to: Postgres's, or a tombstone where it has none, at a version that is higher
// than any that a flush under way may have. On an unknown base, versions are counted from Postgres's.
func rewound(l Letter) counter.Row {
	version := max(l.Redis.Version, l.Postgres.Version) + 1
	if l.Redis.State == StateUnknownBase {
		version = l.Redis.Version + l.Postgres.Version + 1
	}
	return counter.Row{
		Key: l.Key, Value: l.Postgres.Value, Version: version, Deleted: l.Postgres.State != StateValue,
	}
}

// fence makes Postgres have row, so that it takes no older version any more.
func (b *Box) fence(ctx context.Context, row counter.Row) (Returned, error) {
	returned := Returned{Now: side(row)}
	ahead, err := b.store.Upsert(ctx, []counter.Row{row})
	switch {
	case store.Classify(err) == store.Refused:
		returned.Refused = err
	case err != nil:
		return returned, &StillDeadError{
			Key: row.Key, Err: err, Why: "postgres did not take its value back, so it is still dead; run it again",
		}
	case len(ahead) > 0 && ahead[0] != row:
		return returned, &StillDeadError{
			Key: row.Key, Why: fmt.Sprintf("postgres has got %s meanwhile, so it is still dead; look at it again", side(ahead[0])),
		}
	}
	return returned, nil
}

// remove takes the key out of Redis, and its retry out of Asynq's archive.
func (b *Box) remove(ctx context.Context, shown cache.Entry) error {
	done, err := b.cache.Remove(ctx, shown)
	if err = changed(shown.Key, done, err); err != nil {
		return err
	}
	retry, err := b.Retry(shown.Key)
	if err == nil && retry != nil && retry.State == asynq.TaskStateArchived {
		err = b.unarchive(ctx, shown.Key)
	}
	if err != nil {
		// The worker's next retry of the key makes it go.
		b.logger.Warn("the archived retry of a discarded counter was left", "key", shown.Key, "error", err)
	}
	return nil
}

// changed turns the answer of a script into an error.
func changed(key counter.Key, done cache.Discarded, err error) error {
	switch {
	case err != nil:
		return err
	case done == cache.DiscardNotDead:
		return &NotDeadError{Key: key}
	case done == cache.DiscardWritten:
		return &ChangedError{Key: key}
	}
	return nil
}
