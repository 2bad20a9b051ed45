package main

import "fmt"

// step is an operation on a key with a single client.
type step struct {
	kind   stepKind
	amount int64
}

type stepKind uint8

const (
	stepSet stepKind = iota + 1
	stepIncrement
	stepDelete
	stepGet
)

// name returns the kind's name in the report.
func (k stepKind) name() string {
	switch k {
	case stepSet:
		return kindSet
	case stepIncrement:
		return kindIncrement
	case stepDelete:
		return kindDelete
	default:
		return kindRead
	}
}

func (s step) String() string {
	switch s.kind {
	case stepSet:
		return fmt.Sprintf("set %d", s.amount)
	case stepIncrement:
		return fmt.Sprintf("increment %+d", s.amount)
	case stepDelete:
		return "delete"
	default:
		return "get"
	}
}

// sequence is a client's knowledge of its key after sequential operations. Without indeterminate outcomes the state is known exactly.
// An operation with an indeterminate outcome is loose: it may be applied, now or later, because the last call of a killed api may
// still wait in the socket of a busy Redis. The version reveals how many loose operations were applied.
type sequence struct {
	value  int64
	exists bool
	sure   bool  // value and exists are known, unless a loose operation has been applied since
	least  int64 // the version, unless a loose operation has been applied since
	loose  int64 // number of operations that may still be applied
}

// newSequence returns the sequence of a counter that continues from a value; 0 means that it does not exist.
func newSequence(start int64) *sequence {
	return &sequence{value: start, exists: start != 0, sure: true}
}

// certain reports whether the state is known and no operation is loose.
func (s *sequence) certain() bool { return s.sure && s.loose == 0 }

// apply records an answer. It returns a problem of the answer, or "".
func (s *sequence) apply(st step, a answer) string {
	switch {
	case st.kind == stepGet:
		return s.read(a)
	case a.outcome == refused:
		return ""
	case a.outcome == indeterminate:
		s.loose++
		s.sure = false
		return ""
	}
	s.change(st)
	if a.reading == nil {
		return ""
	}
	return s.compare(*a.reading)
}

// mayBeNothing reports whether an operation may leave the counter as it was: a delete of a deleted counter does not increase the version.
func (s *sequence) mayBeNothing(st step) bool {
	return st.kind == stepDelete && (s.loose > 0 || !s.exists)
}

// change applies an acknowledged operation to the known state.
func (s *sequence) change(st step) {
	s.least++
	switch st.kind {
	case stepSet:
		s.value, s.exists, s.sure = st.amount, true, true
	case stepDelete:
		if s.mayBeNothing(st) {
			s.least--
			s.loose++
		}
		s.value, s.exists, s.sure = 0, false, true
	case stepIncrement:
		s.value, s.exists = s.value+st.amount, true
	case stepGet:
	}
}

// read checks the answer to a read.
func (s *sequence) read(a answer) string {
	switch {
	case a.reading != nil && s.sure && !s.exists && s.loose == 0:
		return fmt.Sprintf("value %d, but the counter is deleted", a.reading.value)
	case a.reading != nil:
		return s.compare(*a.reading)
	case a.missing && s.sure && s.exists && s.loose == 0:
		return fmt.Sprintf("no counter, but the value is %d", s.value)
	}
	return ""
}

// compare checks a reading, and derives the number of applied loose operations from its version.
func (s *sequence) compare(r reading) string {
	if r.version == unversioned {
		return s.compareValue(r.value)
	}
	landed := r.version - s.least
	switch {
	case landed < 0:
		return fmt.Sprintf("version %d, but %d operations are applied: some are lost", r.version, s.least)
	case landed > s.loose:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice",
			r.version, s.least+s.loose)
	case landed == 0 && s.sure && s.exists && r.value != s.value:
		return fmt.Sprintf("value %d, but it must be %d", r.value, s.value)
	}
	s.least, s.loose = r.version, s.loose-landed
	if landed > 0 && r.value != s.value {
		s.sure = false
	}
	return ""
}

// compareValue is compare for a reading without a version. While an operation is loose, another value means only that the operation was
// applied; a later reading with a version must show it.
func (s *sequence) compareValue(value int64) string {
	switch {
	case value == s.value || !s.sure || !s.exists:
	case s.loose > 0:
		s.sure = false
	default:
		return fmt.Sprintf("value %d, but it must be %d", value, s.value)
	}
	return ""
}
