package counter

// Kind says what an Operation does.
type Kind uint8

// The operations on a counter.
const (
	Get       Kind = iota + 1 // reads it
	Increment                 // adds Amount, which may be negative
	Set                       // makes Amount its value
	Delete                    // removes it; its version continues
)

// String is the name of the kind in the API and in metrics.
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

// Operation is one thing to do to one counter.
type Operation struct {
	Key    Key
	Kind   Kind
	Amount int64 // what Increment adds, what Set sets; 0 otherwise

	// ID makes the operation idempotent: of all operations on Key with this ID one is carried out, and the others get its answer. It
	// contains no NUL (see ParseID); "" means none. A Get has none.
	ID string
}

// Result is the result of one Operation: a Counter, or an error that is an *Error.
type Result struct {
	Counter  Counter
	Err      error
	Replayed bool // an operation with the same ID was carried out before, and this is its answer
}

// Counter is what is known about a counter after an operation.
type Counter struct {
	Key     Key
	Value   int64
	Version int64 // operations ever accepted on the key
	Exists  bool  // false: deleted, or never written
	Synced  bool  // Postgres has this version

	// SyncedVersion is the version that Postgres has, if the client waited for Postgres; Synced refers to it then, and Version may be
	// newer. Otherwise 0.
	SyncedVersion int64

	// Known is false if the operation was accepted while its base was unknown, because Postgres did not answer. Then Value and Version mean
	// nothing, but Exists and Synced do.
	Known bool
}

// Row is the state of a counter in Postgres.
type Row struct {
	Key     Key
	Value   int64
	Version int64
	Deleted bool // a tombstone

	// Lineage is the number of the run of writes in Redis that has made the state: the epoch of its first write after a state that Postgres
	// had, or after a restart of Redis; 0: unknown. Versions of one lineage can be compared. A later lineage may have begun from a state
	// without the end of an earlier one, in a Redis that had lost its latest writes.
	Lineage int64
	// Base is the version before the lineage. Only a row that is being flushed has it.
	Base int64
}
