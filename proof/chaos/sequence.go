package main

import (
	"fmt"
)

// step is an operation on a key that only one client writes.
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

// name is what the report calls it.
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

// sequence is what one client knows of its key after a series of operations, each of which had its answer before the
// next was sent. While every answer was clear, it knows the state exactly. An operation with an indeterminate outcome is
// loose from then on: it may have been applied, or may still be, because a killed api's last call may wait in the
// socket of a Redis that is busy. The version tells how many of the loose have landed.
type sequence struct {
	value  int64
	exists bool
	sure   bool  // value and exists are known, unless something loose has landed since
	least  int64 // the version, if nothing loose has landed since
	loose  int64 // operations that may still land
}

func newSequence() *sequence { return &sequence{sure: true} }

// certain reports that the state is known whatever was loose.
func (s *sequence) certain() bool { return s.sure && s.loose == 0 }

// apply enters an answer, and says what is wrong with it.
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

// change carries out an acknowledged operation.
func (s *sequence) change(st step) {
	s.least++
	switch st.kind {
	case stepSet:
		s.value, s.exists, s.sure = st.amount, true, true
	case stepDelete:
		if s.loose > 0 || !s.exists { // deleting what may be deleted already may count in the version or not
			s.least--
			s.loose++
		}
		s.value, s.exists, s.sure = 0, false, true
	case stepIncrement:
		s.value, s.exists = s.value+st.amount, true
	case stepGet:
	}
}

// read enters the answer of a read.
func (s *sequence) read(a answer) string {
	switch {
	case a.reading != nil && s.sure && !s.exists && s.loose == 0:
		return fmt.Sprintf("value %d, but it is deleted", a.reading.value)
	case a.reading != nil:
		return s.compare(*a.reading)
	case a.missing && s.sure && s.exists && s.loose == 0:
		return fmt.Sprintf("no counter, but its value is %d", s.value)
	}
	return ""
}

// compare holds what is known against what was answered, and learns from its version how many of the loose have landed.
func (s *sequence) compare(r reading) string {
	landed := r.version - s.least
	switch {
	case landed < 0:
		return fmt.Sprintf("version %d, but %d operations are applied: some are lost", r.version, s.least)
	case landed > s.loose:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice",
			r.version, s.least+s.loose)
	case landed == 0 && s.sure && s.exists && r.value != s.value:
		return fmt.Sprintf("value %d, but it is %d", r.value, s.value)
	}
	s.least, s.loose = r.version, s.loose-landed
	if landed > 0 && r.value != s.value {
		s.sure = false
	}
	return ""
}
