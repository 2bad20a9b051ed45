package store

import (
	"context"
	"errors"

	"github.com/lib/pq"
)

// Class says what an error from Postgres means for the work that met it.
type Class int

// The classes.
const (
	// None is the class of nil.
	None Class = iota
	// Outage: Postgres could not be reached, is overloaded, shutting down, read-only, or too slow. Nothing is wrong with
	// the rows: try again later, as often as it takes.
	Outage
	// Operator: the schema or a permission is wrong. Like Outage, but only an operator can end it.
	Operator
	// Contended: a deadlock or a serialization failure that outlasted the immediate retries. Try again.
	Contended
	// Refused: Postgres, or this package, does not accept (one of) the rows. Trying the same rows again is pointless.
	Refused
	// Canceled: the caller gave up.
	Canceled
)

// String names the class for logs and metrics.
func (c Class) String() string {
	switch c {
	case None:
		return "none"
	case Outage:
		return "outage"
	case Operator:
		return "operator"
	case Contended:
		return "contended"
	case Refused:
		return "refused"
	case Canceled:
		return "canceled"
	}
	return "unknown"
}

var (
	// ErrUnavailable is returned, wrapped, when Postgres was not asked at all: the breaker is open, or too many callers
	// wait already.
	ErrUnavailable = errors.New("postgres is unavailable")
	// ErrInvalid is returned, wrapped, for an argument outside its bounds, a key given twice for example.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotStored is returned, wrapped, when Postgres accepted a batch without an error but does not have one of its
	// rows: a trigger dropped it.
	ErrNotStored = errors.New("postgres did not store a row")
)

// Classify returns the class of err, which any function of this package returned. An error that did not come from the
// server is an Outage: a row must never be given up for a broken network.
func Classify(err error) Class {
	switch {
	case err == nil:
		return None
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Outage
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrNotStored):
		return Refused
	}
	if code := sqlState(err); code != "" {
		return classOfState(code)
	}
	return Outage
}

// classOfState maps a SQLSTATE; the list of them is https://www.postgresql.org/docs/15/errcodes-appendix.html
func classOfState(code string) Class {
	if len(code) < len("00") {
		return Outage
	}
	switch code[:2] {
	case
		"08", // connection exception
		"25", // invalid transaction state; 25006 is read-only: a standby, or a disk that has filled up
		"26", // the statement is gone: a pooler handed out another session
		"28", // authentication
		"3D", // the database does not exist
		"53", // insufficient resources: disk, memory, connections
		"55", // object not in prerequisite state; 55P03 is lock_timeout
		"57", // operator intervention: shutdown, startup; 57014 is statement_timeout
		"58", // system error: I/O
		"F0", // configuration file error
		"XX": // internal error, corruption
		return Outage
	case
		"3F", // the schema does not exist
		"42": // the table or a column does not exist, permission denied
		return Operator
	case "40": // serialization failure, deadlock
		return Contended
	}
	// 22 data exception, 23 constraint, 54 program limit, P0001 RAISE, and whatever code a trigger of somebody else's
	// makes up: what the server says about these rows, not about itself.
	return Refused
}

// IsLocked reports that err is a statement's that waited too long for a lock which somebody else holds (see UpsertUnlocked).
func IsLocked(err error) bool { return sqlState(err) == stateLockNotAvailable }

// TooSlow reports that err is a statement's that ran into the statement timeout: fewer rows may get through.
func TooSlow(err error) bool {
	return sqlState(err) == stateQueryCanceled && !errors.Is(err, context.Canceled)
}

// stateLockNotAvailable is lock_not_available, by lock_timeout.
const stateLockNotAvailable = "55P03"

// sqlState returns the server's code for err, "" where the error is not the server's.
func sqlState(err error) string {
	if e := pq.As(err); e != nil {
		return e.SQLState()
	}
	return ""
}
