package counter

import (
	"errors"
	"time"
)

// Code is the stable name of an error, for clients to switch on. docs/api.md lists what each code means for the write. Package api
// maps codes to HTTP statuses.
type Code string

// The codes.
const (
	CodeInvalidKey            Code = "invalid_key"
	CodeInvalidBody           Code = "invalid_body"
	CodeUnknownField          Code = "unknown_field"
	CodeTooManyOperations     Code = "too_many_operations"
	CodeBodyTooLarge          Code = "body_too_large"
	CodeUnsupportedMediaType  Code = "unsupported_media_type"
	CodeMethodNotAllowed      Code = "method_not_allowed"
	CodeNotFound              Code = "not_found"
	CodeConflict              Code = "conflict" // the counter was written meanwhile, or Postgres does not accept it
	CodeOverflow              Code = "overflow"
	CodeOutOfBounds           Code = "out_of_bounds"           // not applied: the value would leave the operation's bounds
	CodeVersionMismatch       Code = "version_mismatch"        // not applied: the counter does not have the version asked for
	CodeInvalidIdempotencyKey Code = "invalid_idempotency_key" // not applied
	CodeIdempotencyKeyReused  Code = "idempotency_key_reused"  // another operation had the key; not applied
	CodeBackpressure          Code = "backpressure"            // too many dirty keys; not applied
	CodeOverloaded            Code = "overloaded"              // a queue of the api is full; not applied
	CodeCacheFull             Code = "cache_full"              // Redis is at maxmemory; not applied
	CodeCacheUnavailable      Code = "cache_unavailable"       // Redis could not be reached, or refused; not applied
	CodeDatabaseUnavailable   Code = "database_unavailable"    // a read or a discard needs Postgres, which did not answer
	CodeOutcomeUnknown        Code = "outcome_unknown"         // Redis did not answer; may or may not be applied
	CodeNotDurable            Code = "not_durable"             // applied, but the durability was not confirmed in time
	CodeUnsupportedDurability Code = "unsupported_durability"  // not applied
	CodeNotCombined           Code = "not_combined"            // increments that were added up, to be sent one by one; not applied
	CodeInternal              Code = "internal"
)

// Error is an error with a code for the client. Detail is for the client. Err may contain hosts and internals and is only for the log.
type Error struct {
	Err        error
	Code       Code
	Detail     string
	RetryAfter time.Duration // 0: unknown

	// Current is the counter's present state, if the error depends on it. Only Value, Version and Exists are set.
	Current *Counter
}

// Error returns all parts, for logs.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of err, CodeInternal for an error without a code, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
