// Package verify compares every entry in Redis with its row in Postgres, and mends what the rules allow.
//
// Entries come in pages (Cache.EachEntry); each page costs one bounded call to Redis and one query. Redis is looked at before
// Postgres is read, so a write and its flush in between look like a difference. So what differs is looked at again, a few
// 100 ms later, and is a difference only if the entry is then still what it was before Postgres was read, and clean.
package verify

import (
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Class says how an entry stands to its row.
type Class string

// The classes. From Ahead on they are differences.
const (
	Equal     Class = "equal"
	Dirty     Class = "dirty"
	Dead      Class = "dead"
	Unsettled Class = "unsettled"
	Ahead     Class = "ahead"
	Missing   Class = "missing"
	Behind    Class = "behind"
	Different Class = "different"
	Foreign   Class = "foreign"
	Orphan    Class = "orphan"

	gone Class = "" // it expired meanwhile, and is not counted
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
		{Equal, "redis and postgres agree", false},
		{Dirty, "waits for its flush: normal", false},
		{Dead, "postgres refused it: `afterwrite dead list`", false},
		{Unsettled, "was written between any two looks: normal", false},
		{Ahead, "clean in redis but newer than postgres's row: an older backup; or dirty in no epoch; --repair flushes it again", true},
		{Missing, "clean in redis but postgres has no row: likewise", true},
		{Behind, "clean in redis but older than postgres's row: redis lost its tail; --repair drops it from redis", true},
		{Different, "same version, another value: somebody wrote by hand; not mended", true},
		{Foreign, "not a counter's entry: somebody else writes to this redis; not mended", true},
		{Orphan, "in an epoch, but there is no entry: deleted by hand; a flush forgets it", true},
	}
}

// difference reports whether something is wrong.
func (c Class) difference() bool {
	for _, e := range Explanations() {
		if e.Class == c {
			return e.Difference
		}
	}
	return false
}

// mending is what --repair does; "" where nothing.
func (c Class) mending() cache.Repairing {
	switch c {
	case Ahead, Missing:
		return cache.MarkAgain
	case Behind:
		return cache.DropStale
	default:
		return ""
	}
}

// compare classes an entry that was looked at before row was read. A deleted counter needs no row: tombstones are purged.
func compare(e cache.Inspected, row counter.Row, found bool) Class {
	switch {
	case e.Corrupt:
		return Foreign
	case e.Missing && e.Dirty:
		return Orphan
	case e.Missing:
		return gone
	case e.Dirty && e.Dead:
		return Dead
	case e.Stranded:
		return Ahead // no flush would find it
	case e.Dirty:
		return Dirty
	}
	return compareClean(e, row, found)
}

func compareClean(e cache.Inspected, row counter.Row, found bool) Class {
	switch {
	case !found && e.Deleted:
		return Equal
	case !found:
		return Missing
	case e.Version > row.Version:
		return Ahead
	case e.Version < row.Version:
		return Behind
	case e.Deleted != row.Deleted, !e.Deleted && e.Value != row.Value:
		return Different
	}
	return Equal
}

// Compare says how an entry that was looked at stands to its row, which was read afterwards. A difference may be a write and
// its flush in between: look again before you believe it.
func Compare(e cache.Inspected, row counter.Row, found bool) Class { return compare(e, row, found) }
