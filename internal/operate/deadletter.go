package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// DeadLetter is a dead letter with the counter's states in Redis and Postgres.
type DeadLetter struct {
	Key      counter.Key   `json:"key"`
	Shard    counter.Shard `json:"shard"`
	Reason   string        `json:"reason"`   // Postgres's error in the last attempt
	Attempts int           `json:"attempts"` // number of attempts
	Since    time.Time     `json:"since"`    // time of the last attempt, by the worker's clock
	Redis    Stored        `json:"redis"`
	Postgres Stored        `json:"postgres"`

	// PostgresErr is the reason if the state in Postgres is StateUnknown, and nil otherwise.
	PostgresErr error `json:"-"`

	entry cache.Entry // what Redis had, for Discard
}

// State is the kind of state that Redis or Postgres has of a counter.
type State string

// The states.
const (
	StateValue       State = "value"        // a value and a version
	StateDeleted     State = "deleted"      // a tombstone with a version
	StateNone        State = "none"         // nothing
	StateUnknownBase State = "unknown_base" // Redis: value and version count from a base that only Postgres has
	StateForeign     State = "foreign"      // Redis: a corrupt entry, or an unexpected type
	StateUnknown     State = "unknown"      // Postgres did not answer
)

// Stored is the state of a counter in Redis or Postgres. Value and Version are set only in some states.
type Stored struct {
	State   State `json:"state"`
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
}

// String describes the state in a few words.
func (s Stored) String() string {
	switch s.State {
	case StateValue:
		return fmt.Sprintf("%d (version %d)", s.Value, s.Version)
	case StateDeleted:
		return fmt.Sprintf("deleted (version %d)", s.Version)
	case StateUnknownBase:
		return fmt.Sprintf("%d by %d writes on an unknown base", s.Value, s.Version)
	case StateForeign:
		return "not a counter"
	case StateUnknown:
		return "?"
	case StateNone:
	}
	return string(s.State)
}

func storedRow(row counter.Row) Stored {
	if row.Deleted {
		return Stored{State: StateDeleted, Version: row.Version}
	}
	return Stored{State: StateValue, Value: row.Value, Version: row.Version}
}

func storedEntry(e cache.Entry) Stored {
	switch {
	case e.Corrupt:
		return Stored{State: StateForeign}
	case e.Missing:
		return Stored{State: StateNone}
	case e.BaseUnknown:
		return Stored{State: StateUnknownBase, Value: e.Value, Version: e.Version}
	}
	return storedRow(e.Row)
}

// Shown is a dead letter with its retry task.
type Shown struct {
	DeadLetter

	Retry *LastRetry `json:"retry"` // nil: there is no task any more
}

// LastRetry is the retry task of a dead letter in Asynq.
type LastRetry struct {
	ID        string `json:"id"`
	Queue     string `json:"queue"`
	State     string `json:"state"`
	Retried   int    `json:"retried"`
	LastError string `json:"last_error"`
}

// Count returns the number of dead letters, in one round trip.
func (s *Service) Count(ctx context.Context) (int64, error) {
	backlog, err := s.cache.Backlog(ctx)
	return backlog.Dead, err
}

// Get returns the dead letter of key, or an *Error with NotDead. It blocks for three bounded calls.
func (s *Service) Get(ctx context.Context, key counter.Key) (DeadLetter, error) {
	note, found, err := s.cache.DeadLetter(ctx, key)
	if err != nil {
		return DeadLetter{}, err
	}
	if !found {
		return DeadLetter{}, notDead(key)
	}
	dead, err := s.read(ctx, []cache.Note{{Key: key, Dead: note}})
	if err != nil {
		return DeadLetter{}, err
	}
	return dead[0], nil
}

// Show is Get with the retry task. It blocks for four bounded calls.
func (s *Service) Show(ctx context.Context, key counter.Key) (Shown, error) {
	dead, err := s.Get(ctx, key)
	if err != nil {
		return Shown{}, err
	}
	shown := Shown{DeadLetter: dead}
	task, err := s.task(s.queues.Retry(), tasks.RetryID(key))
	if task != nil {
		shown.Retry = &LastRetry{
			ID: task.ID, Queue: task.Queue, State: task.State.String(), Retried: task.Retried, LastError: task.LastErr,
		}
	}
	return shown, err
}

// read returns the dead letters of up to a page of notes.
func (s *Service) read(ctx context.Context, notes []cache.Note) ([]DeadLetter, error) {
	keys := make([]counter.Key, len(notes))
	for i, n := range notes {
		keys[i] = n.Key
	}
	entries := make(map[counter.Key]cache.Entry, len(keys))
	for shard, some := range s.byShard(keys) {
		snapshot, err := s.cache.Read(ctx, shard, some)
		if err != nil {
			return nil, err
		}
		for _, e := range snapshot.Entries {
			entries[e.Key] = e
		}
	}
	rows, postgresErr := s.rows(ctx, keys)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	dead := make([]DeadLetter, len(notes))
	for i, n := range notes {
		entry, found := entries[n.Key]
		if !found {
			entry.Key, entry.Missing = n.Key, true
		}
		row, found := rows[n.Key]
		stored := Stored{State: StateNone}
		if postgresErr != nil {
			stored.State = StateUnknown
		} else if found {
			stored = storedRow(row)
		}
		dead[i] = DeadLetter{
			Key: n.Key, Shard: s.cache.Shard(n.Key), Reason: n.Reason, Attempts: n.Attempts, Since: n.Since,
			Redis: storedEntry(entry), Postgres: stored, PostgresErr: postgresErr, entry: entry,
		}
	}
	return dead, nil
}

// rows reads the rows of keys. If ctx has a deadline, Postgres gets half of the time that is left, so that the caller can still
// answer while Postgres hangs.
func (s *Service) rows(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	if deadline, bounded := ctx.Deadline(); bounded {
		half, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
		ctx = half
	}
	return s.store.Read(ctx, keys)
}
