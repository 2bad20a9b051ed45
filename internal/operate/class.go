package operate

import (
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Class says how an entry in Redis compares with its row in Postgres.
type Class string

// The classes. From ClassAhead on they are differences.
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

	classGone Class = "" // it expired meanwhile, and is not counted
)

// Explanation is a Class and what it means, in one line.
type Explanation struct {
	Class      Class
	Text       string
	Difference bool
}

// Explanations are all classes, in the order in which they are shown.
func Explanations() []Explanation {
	return []Explanation{
		{ClassEqual, "redis and postgres agree", false},
		{ClassDirty, "waits for its flush: normal", false},
		{ClassDead, "postgres refused it: `afterwrite dead list`", false},
		{ClassUnsettled, "was written between any two reads: normal", false},
		{ClassAhead, "clean in redis but newer than postgres's row (an older backup), or dirty in no epoch; --repair flushes it", true},
		{ClassMissing, "clean in redis but postgres has no row: likewise", true},
		{ClassBehind, "clean in redis but older than postgres's row: redis lost its tail; --repair drops it from redis", true},
		{ClassDifferent, "same version, another value: somebody wrote by hand; not repaired", true},
		{ClassForeign, "not a counter's entry: something else writes to this redis; not repaired", true},
		{ClassOrphan, "in an epoch, but there is no entry: deleted by hand; a flush forgets it", true},
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

// repair is what a repair does with the class; "" for nothing.
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

// Compare says how an entry compares with its row, which was read afterwards. A difference may be a write and its flush in
// between: it counts only if it is still there when both are read again. A deleted counter needs no row, since tombstones
// are purged.
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
		return ClassAhead // no flush would find it
	case e.Dirty:
		return ClassDirty
	}
	return compareClean(e, row, found)
}

func compareClean(e cache.Inspected, row counter.Row, found bool) Class {
	switch {
	case !found && e.Deleted:
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
