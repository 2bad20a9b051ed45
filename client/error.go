package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// ErrOutcomeUnknown matches, with errors.Is, every error after which a write may or may not have been applied.
var ErrOutcomeUnknown = errors.New("the write may or may not have been applied")

// Error is why a request or an operation failed. All errors of a Client's requests are of this type.
type Error struct {
	Code   Code   // CodeNoAnswer if there was no usable answer, "" for an answer that is not afterwrite's, as of a proxy
	Status int    // the HTTP status; 0 if there was no answer, or if the client itself refused the call
	Title  string // for people
	Detail string // what is wrong with this request, for people

	RequestID  string        // X-Request-Id, which the server's log has; "" for one operation of a batch
	RetryAfter time.Duration // how long the server asks to wait; 0 if it does not say

	// Value and Version are the counter's present state, with CodeOutOfBounds and CodeVersionMismatch, or nil. With CodeOutOfBounds there
	// always is a Value: 0 if the counter does not exist, which has no Version.
	Value, Version *int64

	// Attempts is how often the request was sent, or tried to be sent.
	Attempts int

	applied Applied
	repeat  bool
	doing   string // such as "increment likes:42"
	cause   error
}

// Applied tells whether the write was applied. It is AppliedNo for a failed read. It stays AppliedUnknown if an attempt had no answer
// and a later one was refused.
func (e *Error) Applied() Applied { return e.applied }

// Error describes what failed, why, and whether the write was applied unless that is clear from the code.
func (e *Error) Error() string {
	var parts []string
	if e.doing != "" {
		parts = append(parts, e.doing)
	}
	switch {
	case e.Code == CodeNoAnswer:
		parts = append(parts, "no answer")
	case e.Status == 0:
		parts = append(parts, string(e.Code))
	case e.Code != "":
		parts = append(parts, fmt.Sprintf("%d %s", e.Status, e.Code))
	default:
		parts = append(parts, fmt.Sprintf("%d %s, not from afterwrite", e.Status, http.StatusText(e.Status)))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	if e.cause != nil {
		parts = append(parts, e.cause.Error())
	}
	text := strings.Join(parts, ": ")
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (attempt %d)", e.Attempts)
	}
	if e.applied == AppliedUnknown {
		text += "; " + ErrOutcomeUnknown.Error()
	}
	return text
}

// Unwrap returns the reason for CodeNoAnswer, such as context.DeadlineExceeded or a *net.OpError, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrOutcomeUnknown) true if the outcome is unknown.
func (e *Error) Is(target error) bool {
	return target == ErrOutcomeUnknown && e.applied == AppliedUnknown
}

// IsCode reports whether err is, or wraps, an *Error with the code.
func IsCode(err error, code Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// inDoubt makes the outcome unknown if an earlier attempt may have been applied: it may still be under way when this one was refused.
func (e *Error) inDoubt(doubt bool) {
	if doubt && e.applied == AppliedNo {
		e.applied = AppliedUnknown
	}
}

// problem is the body of an error answer (RFC 9457), and of a failed operation in a batch.
type problem struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Code    Code   `json:"code"`
	Value   *int64 `json:"value"`
	Version *int64 `json:"version"`
}

func (p *problem) error() *Error {
	m := meaningOf(p.Code, p.Status)
	return &Error{
		Code: p.Code, Status: p.Status, Title: p.Title, Detail: p.Detail, Value: p.Value, Version: p.Version,
		applied: m.applied, repeat: m.repeat,
	}
}

// invalid returns an error of the client itself: nothing was sent.
func invalid(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...), applied: AppliedNo}
}
