package counter

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxNoteBytes bounds the note of an operation.
const MaxNoteBytes = 128

// Origin says where an operation came from, for the history of its counter.
type Origin struct {
	Caller  string // the name of the API key; "": there was none
	Request string // the ID of the request
	Note    string // see ParseNote
}

// ParseNote checks a note from a client: up to MaxNoteBytes bytes of valid UTF-8 without control characters. Its error is an *Error with
// CodeInvalidBody.
func ParseNote(s string) (string, error) {
	switch {
	case len(s) > MaxNoteBytes:
		return "", &Error{Code: CodeInvalidBody, Detail: fmt.Sprintf("the note has %d bytes: it can have at most %d", len(s), MaxNoteBytes)}
	case !utf8.ValidString(s), strings.ContainsFunc(s, unicode.IsControl):
		return "", &Error{Code: CodeInvalidBody, Detail: "the note is not valid UTF-8, or has a control character"}
	}
	return s, nil
}

// Change is what a recorded operation did.
type Change string

// The changes. They are also the values of the column operation in Postgres.
const (
	Incremented Change = "increment"
	Assigned    Change = "set"
	Removed     Change = "delete"
	Rewound     Change = "discard" // an operator discarded the writes since an earlier state, and set the counter back to it
)

// Record is one operation in the history of a counter.
type Record struct {
	Origin

	Version int64 // of the counter after it
	Lineage int64 // see Row
	At      time.Time
	Change  Change
	Amount  int64 // that was added or set; 0 if the counter does not exist afterwards
	Deleted bool  // the counter does not exist afterwards

	Value int64 // of the counter after it, if Known
	Known bool
}
