package counter

// Kind says what an Operation does.
type Kind uint8

// The operations on a counter.
const (
	Get       Kind = iota + 1 // reads it
	Increment                 // adds Amount, which may be negative
	Set                       // makes Amount its value
	Delete                    // removes it; its version goes on counting
)

// String gives the kind its name in the API and in metrics.
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

	// ID makes the operation idempotent: of all operations on Key with this ID, one is carried out, and the others get its
	// answer. Made of one that ParseID lets pass, without a NUL in it; "" for none. A Get has none.
	ID string
}

// Result is what became of one Operation: a Counter, or an error that is an *Error.
type Result struct {
	Counter  Counter
	Err      error
	Replayed bool // an operation with the same ID was carried out before, and this is its answer
}

// Counter is what is known of a counter after an operation.
type Counter struct {
	Key     Key
	Value   int64
	Version int64 // operations ever accepted on the key
	Exists  bool  // false: deleted, or never written
	Synced  bool  // Postgres has this version

	// SyncedVersion is a version that Postgres has, where one was waited for: Synced is about that one then, and Version may
	// be newer. Else 0.
	SyncedVersion int64

	// Known is false when the operation was accepted while the value in Postgres could not be asked for: Value and
	// Version mean nothing then, Exists and Synced do.
	Known bool
}

// Row is the state of a counter as Postgres keeps it.
type Row struct {
	Key     Key
	Value   int64
	Version int64
	Deleted bool // a tombstone

	// Lineage names the run of writes in Redis that the state is made of: the epoch in which the first of them was, after a state
	// that Postgres had, or a restart of Redis; 0 where it is not known. Versions of one lineage can be compared. Of two
	// lineages, the later one may have gone on from a state that lacked the end of the other: a Redis that lost its tail.
	Lineage int64
	// Base is the version that the lineage began from. Only a row on its way to Postgres has it.
	Base int64
}
