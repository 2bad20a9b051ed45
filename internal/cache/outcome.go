package cache

import (
	"errors"
	"fmt"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// head is the line about a shard in the reply of apply.lua.
type head struct {
	epoch, watermark, first int64
	keys                    int64
	token                   string
}

func decodeHead(line string) (head, error) {
	open, rest, _ := strings.Cut(line, " ")
	watermark, rest, _ := strings.Cut(rest, " ")
	first, keys, _ := strings.Cut(rest, " ")
	var f fields
	h := head{epoch: f.id(open), watermark: f.id(watermark), first: f.id(first), keys: f.parse(keys), token: watermark + ":" + open}
	return h, f.err
}

var errEntry = errors.New("the entry in redis is corrupt: something else wrote to its key")

// decodeOutcome reads one line of the reply of apply.lua; see plain.lua for its forms. count is the number of combined increments.
func decodeOutcome(line string, count int64, h *head) Outcome {
	if isEntry(line) {
		return decodeApplied(line, count, h)
	}
	line, replayed := strings.CutPrefix(line, "r ")
	line, joined := strings.CutSuffix(line, " +")
	letter, rest, _ := strings.Cut(line, " ")
	f := fields{rest: rest}
	o := Outcome{Replayed: replayed, Epoch: h.epoch, First: h.first}
	if joined {
		o.Backlog = h.keys
	}
	switch letter {
	case "a":
		o.Value, o.Version, o.Known, o.Exists = f.int(), f.int(), true, true
	case "u":
		o.Exists = true
	case "k":
		o.Value, o.Version, o.Synced, o.Known, o.Exists = f.int(), f.int(), f.int() == 1, true, true
	case "n":
		o.Version, o.Synced, o.Known = f.int(), f.int() == 1, true
	case "c", "w":
		o.Cold, o.Token, o.BlindWrites = true, h.token, letter == "w"
	case "f":
		o.Cold, o.Token, o.Unchecked = true, formatID(h.first), true
	case "d":
		return Outcome{split: true, Err: unreadable(line, errors.New("not sent one by one"))}
	case "x", "v":
		return unmet(letter, line, &f)
	default:
		return Outcome{Err: notApplied(letter, line)}
	}
	switch {
	case f.err == nil:
		return o
	case letter == "k", letter == "n":
		return Outcome{Err: &counter.Error{Code: counter.CodeInternal, Err: errEntry}}
	}
	return Outcome{Err: unreadable(line, f.err)}
}

// isEntry reports whether a line is an entry: all others begin with a letter.
func isEntry(line string) bool { return line != "" && line[0] <= '9' }

// decodeRead reads the answer to a Get: an entry.
func decodeRead(key counter.Key, line string, h *head) Outcome {
	e := decodeEntry(key, line)
	switch {
	case e.Corrupt:
		return Outcome{Err: &counter.Error{Code: counter.CodeInternal, Err: errEntry}}
	case e.BaseUnknown:
		return Outcome{Cold: true, BlindWrites: true, Token: h.token}
	}
	return Outcome{
		Value: e.Value, Version: e.Version, Exists: !e.Deleted, Known: true, Synced: !e.Dirty(h.watermark),
		Epoch: h.epoch, First: h.first,
	}
}

// decodeApplied reads the answer to plain increments: the entry after them.
func decodeApplied(line string, count int64, h *head) Outcome {
	f := fields{rest: line}
	o := Outcome{Known: true, Exists: true, Epoch: h.epoch, First: h.first}
	o.Value, o.Version = f.int(), f.int()
	if f.err != nil {
		return Outcome{Err: unreadable(line, f.err)}
	}
	if _, rest, found := strings.Cut(f.rest, " b"); found && !strings.Contains(f.rest, " l") {
		base, _, _ := strings.Cut(rest, " ")
		if f.parse(base) == o.Version-count {
			o.Backlog = h.keys
		}
	}
	return o
}

// notApplied returns the error for an operation whose line is a single letter.
func notApplied(letter, line string) *counter.Error {
	switch letter {
	case "o":
		return Overflow()
	case "b":
		return notNow(counter.CodeBackpressure, nil, "too many counters wait to be written to Postgres; the operation was not applied")
	case "h":
		return notNow(counter.CodeBackpressure, nil,
			"too many operations with a history wait to be written to Postgres; the operation was not applied")
	case "e":
		return &counter.Error{Code: counter.CodeInternal, Err: errEntry}
	case "m":
		return &counter.Error{
			Code:   counter.CodeIdempotencyKeyReused,
			Detail: "another operation on this counter had the same idempotency key; this one was not applied",
		}
	}
	return unreadable(line, errors.New("unknown letter"))
}

// unmet returns the outcome of an operation whose condition the counter does not meet.
func unmet(letter, line string, f *fields) Outcome {
	current := counter.Counter{Value: f.int(), Version: f.int(), Exists: f.int() == 1, Known: true}
	if f.err != nil {
		return Outcome{Err: unreadable(line, f.err)}
	}
	e := &counter.Error{Code: counter.CodeOutOfBounds, Current: &current}
	switch {
	case letter == "x":
		e.Detail = fmt.Sprintf("the value would leave the bounds; it is %d, and the operation was not applied", current.Value)
	case current.Exists:
		e.Code = counter.CodeVersionMismatch
		e.Detail = fmt.Sprintf("the counter has version %d; the operation was not applied", current.Version)
	default:
		e.Code = counter.CodeVersionMismatch
		e.Detail = "there is no counter with this key; the operation was not applied"
	}
	return Outcome{Err: e}
}

// unreadable returns the error for an operation whose line cannot be read.
func unreadable(line string, err error) *counter.Error {
	return &counter.Error{
		Code: counter.CodeOutcomeUnknown, Err: fmt.Errorf("reply of apply.lua %q: %w", line, err),
		Detail: "the answer of Redis could not be read: the operation may or may not have been applied",
	}
}

// notCombined returns the error for increments that the caller has added up, and now must send one by one.
func notCombined() *counter.Error {
	return &counter.Error{
		Code:   counter.CodeNotCombined,
		Detail: "the value might overflow in between; none of the increments was applied: send them one by one",
	}
}

// Overflow returns the error for an operation whose sum does not fit into 64 bits.
func Overflow() *counter.Error {
	return &counter.Error{
		Code:   counter.CodeOverflow,
		Detail: "the value would leave the range of a signed 64-bit integer; the operation was not applied",
	}
}
