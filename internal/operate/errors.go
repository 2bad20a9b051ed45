package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Reason is the reason why an action on a dead letter was not completed.
type Reason string

// The reasons.
const (
	NotDead      Reason = "not dead"      // the key is not a dead letter; nothing was done
	Changed      Reason = "changed"       // the counter was written after it was read; nothing was done
	PostgresAway Reason = "postgres away" // the state in Postgres is unknown; nothing was done
	StillDead    Reason = "still dead"    // the entry has Postgres's value, but the key is still dead; discard it again
)

// Error is the error of an action on a dead letter that was not completed.
type Error struct {
	Reason Reason
	Key    counter.Key
	Detail string // a sentence without the key and without secrets
	Err    error  // Postgres's error; nil if there is none
}

// Error returns a text with the key and the command that shows more.
func (e *Error) Error() string {
	text := fmt.Sprintf("%q: %s", e.Key, e.Detail)
	switch e.Reason {
	case NotDead:
		text += "; `afterwrite dead list` shows the dead letters"
	case Changed:
		text += "; `afterwrite dead show` shows its present state"
	case PostgresAway, StillDead:
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Postgres's error.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of err, or "" if err is not an *Error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// Explain turns an error of this package into a counter.Error. Code and Detail have no addresses and no secrets, so that the API
// and the dashboard may show them. Err is for the log. The action may be done in part, and may be repeated.
func Explain(err error) *counter.Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &counter.Error{Code: e.code(), Detail: e.Detail, Err: e.Err}
	}
	explained := cache.Unapplied(err)
	explained.Detail = "Redis did not answer; the action may be done in part, and it may be repeated"
	if errors.Is(err, context.DeadlineExceeded) {
		explained.Detail = "the action took too long; it may be done in part, and it may be repeated"
	}
	return explained
}

func (e *Error) code() counter.Code {
	switch {
	case e.Reason == NotDead:
		return counter.CodeNotFound
	case e.Reason == PostgresAway, e.Err != nil && store.Classify(e.Err) != store.Refused:
		return counter.CodeDatabaseUnavailable
	}
	return counter.CodeConflict
}

func notDead(key counter.Key) error {
	return &Error{Reason: NotDead, Key: key, Detail: "the counter is not a dead letter"}
}

func stillDead(key counter.Key, err error, detail string) error {
	return &Error{Reason: StillDead, Key: key, Detail: detail, Err: err}
}
