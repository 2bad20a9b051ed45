package client

import "net/http"

// Code is the stable name of an error. docs/api.md describes each. A later server may send codes that are not listed here.
type Code string

// Codes of refusals. The write was not applied, and repeating it without a change is useless.
const (
	CodeInvalidKey            Code = "invalid_key"
	CodeInvalidBody           Code = "invalid_body"
	CodeUnknownField          Code = "unknown_field"
	CodeTooManyOperations     Code = "too_many_operations"
	CodeInvalidIdempotencyKey Code = "invalid_idempotency_key"
	CodeInvalidPrecondition   Code = "invalid_precondition"
	CodeInvalidQuery          Code = "invalid_query"
	CodeUnsupportedDurability Code = "unsupported_durability" // this server cannot give it
	CodeUnauthorized          Code = "unauthorized"           // no API key, or a wrong one
	CodeForbidden             Code = "forbidden"              // the API key may not do this, or not to this counter
	CodeNotFound              Code = "not_found"              // a read: there is no such counter
	CodeMethodNotAllowed      Code = "method_not_allowed"
	CodeConflict              Code = "conflict"
	CodeOverflow              Code = "overflow"         // the value would leave the range of an int64
	CodeOutOfBounds           Code = "out_of_bounds"    // the value would leave Min or Max; Error.Value is the present one
	CodeVersionMismatch       Code = "version_mismatch" // the counter has another version than IfMatch asked for
	CodeBodyTooLarge          Code = "body_too_large"
	CodeUnsupportedMediaType  Code = "unsupported_media_type"
	CodeIdempotencyKeyReused  Code = "idempotency_key_reused" // another operation on this counter had this IdempotencyKey
)

// Codes after which the write was not applied, and may be repeated later. The Client does that.
const (
	CodeRateLimited         Code = "rate_limited"
	CodeBackpressure        Code = "backpressure"         // too many counters wait for Postgres
	CodeOverloaded          Code = "overloaded"           // a queue of the server is full
	CodeCacheFull           Code = "cache_full"           // Redis has no memory left
	CodeCacheUnavailable    Code = "cache_unavailable"    // Redis was not reached
	CodeDatabaseUnavailable Code = "database_unavailable" // the request needs Postgres, which did not answer
)

const (
	// CodeNotDurable means that the write WAS applied, but not confirmed at the Durability in time. With the same IdempotencyKey it
	// may be repeated, to wait again.
	CodeNotDurable Code = "not_durable"
	// CodeOutcomeUnknown means that Redis did not answer the server: the write may or may not be applied. The Client repeats it if it
	// has an Idempotency-Key.
	CodeOutcomeUnknown Code = "outcome_unknown"
	// CodeInternal means that the server has a bug. The write may or may not be applied.
	CodeInternal Code = "internal"
	// CodeNoAnswer is the client's own: there was no usable answer. Error.Unwrap has the reason. A write may or may not be applied,
	// unless nothing was sent.
	CodeNoAnswer Code = "no_answer"
)

// Applied tells whether a write was applied. The zero value is AppliedUnknown.
type Applied int

// Whether a write was applied.
const (
	AppliedUnknown Applied = iota
	AppliedNo
	AppliedYes
)

// String returns "unknown", "no" or "yes".
func (a Applied) String() string { return [...]string{"unknown", "no", "yes"}[a] }

// meaning says what an answer means for the request.
type meaning struct {
	applied Applied
	repeat  bool // a repetition may succeed
}

var (
	refused   = meaning{applied: AppliedNo}
	notNow    = meaning{applied: AppliedNo, repeat: true}
	uncertain = meaning{applied: AppliedUnknown, repeat: true}
)

var meanings = map[Code]meaning{
	CodeInvalidKey: refused, CodeInvalidBody: refused, CodeUnknownField: refused, CodeTooManyOperations: refused,
	CodeInvalidIdempotencyKey: refused, CodeInvalidPrecondition: refused, CodeInvalidQuery: refused,
	CodeUnsupportedDurability: refused, CodeUnauthorized: refused, CodeForbidden: refused, CodeNotFound: refused,
	CodeMethodNotAllowed: refused, CodeConflict: refused, CodeOverflow: refused, CodeOutOfBounds: refused,
	CodeVersionMismatch: refused, CodeBodyTooLarge: refused, CodeUnsupportedMediaType: refused, CodeIdempotencyKeyReused: refused,

	CodeRateLimited: notNow, CodeBackpressure: notNow, CodeOverloaded: notNow, CodeCacheFull: notNow,
	CodeCacheUnavailable: notNow, CodeDatabaseUnavailable: notNow,

	CodeNotDurable:     {applied: AppliedYes},
	CodeOutcomeUnknown: uncertain,
	CodeInternal:       {applied: AppliedUnknown},
}

// meaningOf returns the meaning of an error answer. An answer without a code that is known comes from a proxy or a newer server: a 4xx
// refuses the request, and after a 5xx anything is possible.
func meaningOf(code Code, status int) meaning {
	if m, known := meanings[code]; known {
		return m
	}
	switch {
	case status == http.StatusTooManyRequests:
		return notNow
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout,
		status == http.StatusRequestTimeout:
		return uncertain
	case status >= 300 && status < 500:
		return refused
	default:
		return meaning{applied: AppliedUnknown}
	}
}
