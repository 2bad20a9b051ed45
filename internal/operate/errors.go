package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Reason says why an action on a dead letter was not done, or not to its end.
type Reason string

// The reasons.
const (
	NotDead      Reason = "not dead"      // the key is not a dead letter; nothing was done
	Changed      Reason = "changed"       // the counter was written since it was read; nothing was done
	PostgresAway Reason = "postgres away" // the state in Postgres is unknown; nothing was done
	StillDead    Reason = "still dead"    // the entry has Postgres's value, but the key is still dead; discard it again
)

// Error is an action on a dead letter that was not done, or not to its end.
type Error struct {
	Reason Reason
	Key    counter.Key
	Detail string // a sentence that may be shown to anybody; it does not name the key
	Err    error  // what Postgres answered; nil unless it failed or refused
}

// Error names the key, and the command that tells more.
func (e *Error) Error() string {
	text := fmt.Sprintf("%q: %s", e.Key, e.Detail)
	switch e.Reason {
	case NotDead:
		text += "; `afterwrite dead list` shows those that are"
	case Changed:
		text += "; `afterwrite dead show` shows what it is now"
	case PostgresAway, StillDead:
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns what Postgres answered.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of err, "" for an error that is not an *Error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// Explain says what an error of this package means. Code and Detail hold no addresses and no secrets, so the API and the
// pages may show them; Err is for the log. What was done before the error stays done, and the action may be repeated.
func Explain(err error) *counter.Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &counter.Error{Code: e.code(), Detail: e.Detail, Err: e.Err}
	}
	explained := cache.Unapplied(err)
	explained.Detail = "Redis did not answer, so it was not done, or not all of it; it may be repeated"
	if errors.Is(err, context.DeadlineExceeded) {
		explained.Detail = "it took too long, so it was not done, or not all of it; it may be repeated"
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
	return &Error{Reason: NotDead, Key: key, Detail: "it is not a dead letter"}
}

func stillDead(key counter.Key, err error, detail string) error {
	return &Error{Reason: StillDead, Key: key, Detail: detail, Err: err}
}
