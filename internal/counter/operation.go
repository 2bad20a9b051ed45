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
}

// Result is what became of one Operation: a Counter, or an error that is an *Error.
type Result struct {
	Counter Counter
	Err     error
}

// Counter is what is known of a counter after an operation.
type Counter struct {
	Key     Key
	Value   int64
	Version int64 // operations ever accepted on the key
	Exists  bool  // false: deleted, or never written
	Synced  bool  // Postgres has this version

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
}
