package operate

import (
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Class is the result of comparing an entry in Redis with its row in Postgres.
type Class string

// The classes. Those from ClassAhead on are differences.
const (
	ClassEqual     Class = "equal"
	ClassDirty     Class = "dirty"
	ClassDead      Class = "dead"
	ClassUnsettled Class = "unsettled"
	ClassAhead     Class = "ahead"
	ClassMissing   Class = "missing"
	ClassBehind    Class = "behind"
	ClassDifferent Class = "different"
	ClassForeign   Class = "foreign"
	ClassOrphan    Class = "orphan"

	classGone Class = "" // the entry disappeared meanwhile; it is not counted
)

// Explanation explains a Class in one line.
type Explanation struct {
	Class      Class
	Text       string
	Difference bool
}

// Explanations returns all classes in display order.
func Explanations() []Explanation {
	return []Explanation{
		{ClassEqual, "redis and postgres agree", false},
		{ClassDirty, "waits for its flush: normal", false},
		{ClassDead, "postgres refused it: `afterwrite dead list`", false},
		{ClassUnsettled, "was written between any two reads: normal", false},
		{ClassAhead, "clean in redis but newer than the row (an older backup), or dirty in no epoch; --repair flushes it", true},
		{ClassMissing, "clean in redis but without a row in postgres (an older backup); --repair flushes it", true},
		{ClassBehind, "clean in redis but older than the row: redis lost its latest writes; its next use reads the row, " +
			"--repair drops it", true},
		{ClassDifferent, "same version, another value: written by hand; not repaired", true},
		{ClassForeign, "not a counter's entry: another program writes to this redis; not repaired", true},
		{ClassOrphan, "in an epoch, but without an entry: deleted by hand; a flush drops it", true},
	}
}

func (c Class) isDifference() bool {
	for _, e := range Explanations() {
		if e.Class == c {
			return e.Difference
		}
	}
	return false
}

// repair returns how an entry of the class is repaired, or "" if it is not repaired.
func (c Class) repair() cache.Repairing {
	switch c {
	case ClassAhead, ClassMissing:
		return cache.MarkAgain
	case ClassBehind:
		return cache.DropStale
	default:
		return ""
	}
}

// Compare compares an entry with its row, which must be read after the entry. A write and its flush between the two reads look
// like a difference, so a difference counts only if it is still there when both are read again. A deleted counter needs no row,
// because tombstones are purged; nor does a counter that was never written.
func Compare(e cache.Inspected, row counter.Row, found bool) Class {
	switch {
	case e.Corrupt:
		return ClassForeign
	case e.Missing && e.Dirty:
		return ClassOrphan
	case e.Missing:
		return classGone
	case e.Dirty && e.Dead:
		return ClassDead
	case e.Stranded:
		return ClassAhead // no flush finds it
	case e.Dirty:
		return ClassDirty
	}
	return compareClean(e, row, found)
}

func compareClean(e cache.Inspected, row counter.Row, found bool) Class {
	switch {
	case !found && (e.Deleted || e.Version == 0): // version 0 was never written: it has the value of its column
		return ClassEqual
	case !found:
		return ClassMissing
	case e.Version > row.Version:
		return ClassAhead
	case e.Version < row.Version:
		return ClassBehind
	case e.Deleted != row.Deleted, !e.Deleted && e.Value != row.Value:
		return ClassDifferent
	}
	return ClassEqual
}
