package deadletter

import (
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Letter is a dead letter with what both sides have of the counter.
type Letter struct {
	Key      counter.Key   `json:"key"`
	Shard    counter.Shard `json:"shard"`
	Reason   string        `json:"reason"`   // what Postgres said at the last attempt
	Attempts int           `json:"attempts"` // how often it was tried
	Since    time.Time     `json:"since"`    // of the last attempt, by the worker's clock
	Redis    Side          `json:"redis"`
	Postgres Side          `json:"postgres"`

	entry cache.Entry // for a discard
}

// State says what one side has of a counter.
type State string

// The states.
const (
	StateValue       State = "value"        // a value and a version
	StateDeleted     State = "deleted"      // a tombstone with a version
	StateNone        State = "none"         // nothing
	StateUnknownBase State = "unknown_base" // Redis: writes, counted from a base that Postgres has; value and version are theirs
	StateForeign     State = "foreign"      // Redis: something that is not a counter
	StateUnknown     State = "unknown"      // Postgres did not answer
)

// Side is what Redis or Postgres has of a counter. Value and Version mean something as far as State says.
type Side struct {
	State   State `json:"state"`
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
}

// String is the side in a few words.
func (s Side) String() string {
	switch s.State {
	case StateValue:
		return fmt.Sprintf("%d (version %d)", s.Value, s.Version)
	case StateDeleted:
		return fmt.Sprintf("deleted (version %d)", s.Version)
	case StateUnknownBase:
		return fmt.Sprintf("%d by %d writes on an unknown base", s.Value, s.Version)
	case StateForeign:
		return "not a counter"
	case StateUnknown:
		return "?"
	case StateNone:
		return "none"
	}
	return string(s.State)
}

func redisSide(e cache.Entry) Side {
	switch {
	case e.Corrupt:
		return Side{State: StateForeign}
	case e.Missing:
		return Side{State: StateNone}
	case e.BaseUnknown:
		return Side{State: StateUnknownBase, Value: e.Value, Version: e.Version}
	}
	return side(e.Row)
}

func postgresSide(row counter.Row, found bool) Side {
	if !found {
		return Side{State: StateNone}
	}
	return side(row)
}

func side(row counter.Row) Side {
	if row.Deleted {
		return Side{State: StateDeleted, Version: row.Version}
	}
	return Side{State: StateValue, Value: row.Value, Version: row.Version}
}
