package counter

import "math"

// Kind says what an Operation does.
type Kind uint8

// The operations on a counter.
const (
	Get       Kind = iota + 1 // reads the counter
	Increment                 // adds Amount, which may be negative
	Set                       // sets the value to Amount
	Delete                    // deletes the counter; its version continues
)

// String returns the name of the kind in the API and in metrics.
func (k Kind) String() string {
	switch k {
	case Get:
		return "get"
	case Increment:
		return "increment"
	case Set:
		return "set"
	case Delete:
		return "delete"
	}
	return "unknown"
}

// MaxCombined bounds the sum of the absolute amounts of increments that are added up in one Operation (see Operation.Count).
const MaxCombined = 20_000_000_000

// Increments returns the number of operations that op stands for.
func (op *Operation) Increments() int { return max(1, int(op.Count)) }

// Operation is one operation on one counter.
type Operation struct {
	Key  Key
	Kind Kind

	// Count is the number of increments that were added up in Amount; 0 and 1: it is one operation. The version grows by Count. If an
	// intermediate value might overflow, nothing is applied, and the error has CodeNotCombined. The absolute amounts together are at most
	// MaxCombined. An operation with a Count above 1 has no ID and no Condition, and is the only one on its key in its batch.
	Count int32 // it shares 8 bytes with Kind: batches copy their operations

	Amount int64 // what Increment adds, what Set sets; 0 otherwise

	// ID makes the operation idempotent: only the first operation on Key with this ID is carried out, and later ones get its answer. It
	// contains no NUL (see ParseID). "" means no ID. A Get has no ID.
	ID string

	// Condition says when the operation is carried out; nil: always. A Get has none.
	Condition *Condition

	// Origin is kept in the history of a counter that has one. Nil: nothing is known. The operations of one request may share it.
	Origin *Origin
}

// Condition restricts an operation. If the counter does not meet it, the operation is not applied, and its error has the counter's
// present state. A counter that does not exist has the value 0. Make one with Unconditional.
type Condition struct {
	// Min and Max bound the value after an Increment; Unbounded reports whether they do.
	Min, Max int64
	// Version is the version that the counter must have; 0: any. A deleted counter has none.
	Version int64
	// Exists says that the counter must exist. It follows from a Version.
	Exists bool
	// Absent says that the counter must not exist: it was never written, or is deleted.
	Absent bool
}

// Unconditional returns a Condition that every counter meets.
func Unconditional() Condition { return Condition{Min: math.MinInt64, Max: math.MaxInt64} }

// Unbounded reports whether c allows every value.
func (c Condition) Unbounded() bool { return c.Min == math.MinInt64 && c.Max == math.MaxInt64 }

// Result is the result of one Operation: Counter, or Err, which is an *Error.
type Result struct {
	Counter  Counter
	Err      error
	Replayed bool // the result is that of an earlier operation with the same ID
	Existed  bool // of a Delete: the counter existed before, or its base is unknown
}

// Counter is the state of a counter after an operation.
type Counter struct {
	Key     Key
	Value   int64
	Version int64 // operations ever accepted on the key
	Exists  bool  // false: deleted, or never written
	Synced  bool  // Postgres has this version

	// SyncedVersion is the version that Postgres has, if the client waited for Postgres, and 0 otherwise. If it is not 0, Synced refers
	// to the awaited version, and Version may be newer.
	SyncedVersion int64

	// Known is false if the operation was accepted while its base was unknown, because Postgres did not answer. Then Value and Version
	// are not set, but Exists and Synced are.
	Known bool
}

// Row is the state of a counter in Postgres.
type Row struct {
	Key     Key
	Value   int64
	Version int64
	Deleted bool // a tombstone

	// Lineage is the number of the state's lineage (see docs/glossary.md): the epoch of its first write. 0: unknown. Versions of one
	// lineage can be compared. Versions of two lineages cannot: Redis may have lost the latest writes of the earlier lineage before the
	// later one began.
	Lineage int64
	// Base is the version before the lineage. It is set only in rows to be flushed.
	Base int64
	// Start is the value before the lineage, if Started: not if the value was set or deleted since. Both are set only in rows to be
	// flushed.
	Start   int64
	Started bool
}

// Stored returns the row as Postgres stores it: without what only a flush needs.
func (r Row) Stored() Row {
	r.Base, r.Start, r.Started = 0, 0, false
	return r
}
