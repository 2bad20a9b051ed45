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

// retryAfter is the advice to clients while Redis is away or full.
const retryAfter = time.Second

// writeError says what an error of a script call means for the operations in it.
func writeError(err error) *counter.Error {
	switch {
	case isWrongType(err):
		return &counter.Error{Code: counter.CodeInternal, Err: fmt.Errorf("%w: %w", errEntry, err)}
	case isFull(err):
		return &counter.Error{
			Code: counter.CodeCacheFull, Err: err, RetryAfter: retryAfter,
			Detail: "Redis is at its memory limit; the operation was not applied",
		}
	case notSent(err) || answered(err):
		return &counter.Error{
			Code: counter.CodeCacheUnavailable, Err: err, RetryAfter: retryAfter,
			Detail: "Redis cannot take writes now; the operation was not applied",
		}
	default:
		return &counter.Error{
			Code: counter.CodeOutcomeUnknown, Err: err,
			Detail: "the operation was sent to Redis, but its answer was lost: it may or may not have been applied",
		}
	}
}

// isFull reports that Redis refused a call because it is at maxmemory. It does so before the first write of a script,
// so nothing has been applied.
func isFull(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && strings.Contains(e.Error(), "OOM ")
}

// isWrongType reports that a key holds another type than it should. Scripts find that out before they write.
func isWrongType(err error) bool {
	var e redis.Error
	return errors.As(err, &e) && strings.Contains(e.Error(), "WRONGTYPE ")
}

// refusals are the errors by which Redis refuses a call as a whole, or a script before its first write.
var refusals = []string{
	"LOADING", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN", "CROSSSLOT",
	"NOAUTH", "WRONGPASS", "NOPERM", "NOSCRIPT", "BUSY", "UNBLOCKED", "ERR max number of clients",
}

// isReply reports that an error is what Redis replied: it was reached, and what queues behind the call may be sent.
func isReply(err error) bool {
	var e redis.Error
	return errors.As(err, &e)
}

// answered reports that Redis itself refused the call, so that nothing has been applied. Any other error of a running script
// says nothing about what it had done before.
func answered(err error) bool { return refusalOf(err, refusals) != "" }

// Refusal returns the word by which a Redis that answers reads refuses every write: MISCONF (it cannot save its data),
// READONLY (it is a replica) or NOREPLICAS (it has too few of them). It is "" where err is nil or anything else.
func Refusal(err error) string { return refusalOf(err, []string{"MISCONF", "READONLY", "NOREPLICAS"}) }

// Denial returns the word by which a Redis that runs refuses to serve us at all: LOADING (its data), CLUSTERDOWN, MASTERDOWN (a replica
// that lost its master), NOAUTH, WRONGPASS or NOPERM. It is "" where err is nil or anything else.
func Denial(err error) string {
	return refusalOf(err, []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM"})
}

// refusalOf returns the one of words that Redis refused a call with, or "".
func refusalOf(err error, words []string) string {
	var e redis.Error
	if !errors.As(err, &e) {
		return ""
	}
	message := e.Error()
	for _, refusal := range words {
		// Redis 6.2 puts its own refusals into the script's error. One that a script passes on comes with ERR before it.
		if strings.HasPrefix(message, refusal) || strings.HasPrefix(message, "ERR "+refusal+" ") ||
			strings.Contains(message, "-"+refusal+" ") {
			return refusal
		}
	}
	return ""
}

// notSent reports that not one byte of the call left this process: no connection could be had.
func notSent(err error) bool {
	if errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed) {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// unreachable is the answer for what was queued behind a call that did not reach Redis.
func unreachable() *counter.Error {
	return &counter.Error{
		Code: counter.CodeCacheUnavailable, RetryAfter: retryAfter,
		Detail: "Redis did not answer the operations before this one, so it was not sent and not applied",
	}
}

// unsent is the answer for a caller that left before its operations were sent. It is seen in the log at most.
func unsent(ctx context.Context) *counter.Error {
	return &counter.Error{
		Code: counter.CodeCacheUnavailable, Err: context.Cause(ctx), RetryAfter: retryAfter,
		Detail: "the request ended before its operations were sent to Redis; they were not applied",
	}
}

// overloaded is the answer when the queue of a Writer is full.
func overloaded() *counter.Error {
	return &counter.Error{
		Code: counter.CodeOverloaded, RetryAfter: retryAfter,
		Detail: "this process has too many operations waiting for Redis; the operation was not applied",
	}
}

// givenUp is the answer when the caller's context ended while its operations were queued or on their way.
func givenUp(ctx context.Context) *counter.Error {
	return &counter.Error{
		Code: counter.CodeOutcomeUnknown, Err: context.Cause(ctx),
		Detail: "the request ended before Redis had answered: the operation may or may not have been applied",
	}
}

// Unapplied is what an error of a step before the write (Hydrate) means for an operation that has not been sent.
func Unapplied(err error) *counter.Error {
	if isFull(err) {
		return writeError(err)
	}
	return &counter.Error{
		Code: counter.CodeCacheUnavailable, Err: err, RetryAfter: retryAfter,
		Detail: "Redis could not be asked; the operation was not applied",
	}
}
