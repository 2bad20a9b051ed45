package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// retryAfter is the Retry-After of errors while Redis is away or full.
const retryAfter = time.Second

// writeError returns the error for the operations of a script call that failed with err.
func writeError(err error) *counter.Error {
	switch {
	case isWrongType(err):
		return &counter.Error{Code: counter.CodeInternal, Err: fmt.Errorf("%w: %w", errEntry, err)}
	case IsFull(err):
		return notNow(counter.CodeCacheFull, err, "Redis is at its memory limit; the operation was not applied")
	case refusalOf(err, []string{"NOREPLICAS"}) != "":
		return notNow(counter.CodeCacheUnavailable, err,
			"Redis has fewer replicas than min-replicas-to-write, so it accepts no writes; the operation was not applied")
	case notSent(err) || refused(err):
		return notNow(counter.CodeCacheUnavailable, err, "Redis does not accept writes now; the operation was not applied")
	default:
		return &counter.Error{
			Code: counter.CodeOutcomeUnknown, Err: err,
			Detail: "the operation was sent to Redis, but its answer was lost: it may or may not have been applied",
		}
	}
}

// IsFull reports whether Redis refused a call because it is at maxmemory. It does so before the first write of a script, so nothing has
// been applied.
func IsFull(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && strings.Contains(e.Error(), "OOM ")
}

// isWrongType reports whether a key holds an unexpected type. Scripts find that out before they write.
func isWrongType(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && strings.Contains(e.Error(), "WRONGTYPE ")
}

// The refusals of a server that is not the master.
const (
	moved    = "MOVED"    // on a cluster
	readOnly = "READONLY" // a replica
)

// refusals are the errors with which Redis refuses a call as a whole, or a script before its first write.
var refusals = []string{
	"LOADING", readOnly, "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", moved, "ASK", "TRYAGAIN", "CROSSSLOT",
	"NOAUTH", "WRONGPASS", "NOPERM", "NOSCRIPT", "BUSY", "UNBLOCKED", "ERR max number of clients",
}

// isReply reports whether Redis itself replied with the error: it was reached, so the next calls may be sent. The reply of a Sentinel that
// was asked for the master is none.
func isReply(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && !notSent(err)
}

// refused reports whether Redis refused the call, so that nothing has been applied. Any other error may occur in the middle of a script.
func refused(err error) bool { return refusalOf(err, refusals) != "" }

// Refusal returns the first word of an error with which Redis still answers reads but refuses every write: MISCONF (it cannot save its
// data), READONLY (it is a replica) or NOREPLICAS (it has too few replicas). It is "" for nil and any other error.
func Refusal(err error) string { return refusalOf(err, []string{"MISCONF", readOnly, "NOREPLICAS"}) }

// Denial returns the first word of an error with which a running Redis refuses to serve this process at all: LOADING (its data),
// CLUSTERDOWN, MASTERDOWN (a replica without its master), NOAUTH, WRONGPASS or NOPERM. It is "" for nil and any other error.
func Denial(err error) string {
	return refusalOf(err, []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM"})
}

// refusalOf returns the word with which Redis refused a call, or "" if it is none of words.
func refusalOf(err error, words []string) string {
	var e redis.Error
	if !errors.As(err, &e) {
		return ""
	}
	message := e.Error()
	for _, refusal := range words {
		// Redis 6.2 wraps its own refusals into the error of the script. An error that a script passes on begins with ERR.
		if strings.HasPrefix(message, refusal) || strings.HasPrefix(message, "ERR "+refusal+" ") ||
			strings.Contains(message, "-"+refusal+" ") {
			return refusal
		}
	}
	return ""
}

// unsentError is the error of a call of which no byte was sent. It reads as the error in it.
type unsentError struct{ error }

func (e unsentError) Unwrap() error { return e.error }

// notSent reports whether the call was not sent at all, for lack of a connection.
func notSent(err error) bool {
	if errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed) {
		return true
	}
	if _, unsent := errors.AsType[unsentError](err); unsent {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// notNow returns the error for operations that were not applied and may be repeated later.
func notNow(code counter.Code, err error, detail string) *counter.Error {
	return &counter.Error{Code: code, Err: err, RetryAfter: retryAfter, Detail: detail}
}

// unreachable returns the error for operations that were queued behind a call that did not reach Redis.
func unreachable() *counter.Error {
	return notNow(counter.CodeCacheUnavailable, nil,
		"Redis did not answer the operations before this one, so it was not sent and not applied")
}

// unsent returns the error for operations whose caller left before they were sent. Only the log shows it.
func unsent(ctx context.Context) *counter.Error {
	return notNow(counter.CodeCacheUnavailable, context.Cause(ctx),
		"the request ended before its operations were sent to Redis; they were not applied")
}

// overloaded returns the error for operations that find the queue of a Writer full.
func overloaded() *counter.Error {
	return notNow(counter.CodeOverloaded, nil, "this process has too many operations waiting for Redis; the operation was not applied")
}

// givenUp returns the error for operations whose caller's context ended while they were queued or in flight.
func givenUp(ctx context.Context) *counter.Error {
	return &counter.Error{
		Code: counter.CodeOutcomeUnknown, Err: context.Cause(ctx),
		Detail: "the request ended before Redis had answered: the operation may or may not have been applied",
	}
}

// Unapplied returns the error for operations that were not sent because an earlier step (Hydrate) failed with err.
func Unapplied(err error) *counter.Error {
	if IsFull(err) || Refusal(err) != "" {
		return writeError(err)
	}
	return notNow(counter.CodeCacheUnavailable, err, "Redis did not answer; the operation was not applied")
}
