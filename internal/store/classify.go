package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/lib/pq"
)

// Class is the kind of an error. It decides whether to retry.
type Class int

// The classes.
const (
	// None is the class of nil.
	None Class = iota
	// Outage: Postgres is unreachable, overloaded, shutting down, read-only, or too slow. Nothing is wrong with the rows. Retry
	// later, without a limit.
	Outage
	// Operator: the schema or a permission is wrong. Retry as for Outage, but an operator has to act first.
	Operator
	// Contended: a deadlock or a serialization failure, also in the immediate retries. Retry.
	Contended
	// Refused: Postgres or this package refuses at least one of the rows. Retrying the same rows would fail again.
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
	// ErrUnavailable is returned, wrapped, if Postgres was not called: the breaker is open, or too many callers wait already.
	ErrUnavailable = errors.New("postgres is unavailable")
	// ErrInvalid is returned, wrapped, for an invalid argument, such as a duplicate key.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotStored is returned, wrapped, if Postgres reported no error but did not store one of the rows, because of a trigger.
	ErrNotStored = errors.New("postgres did not store a row")
)

// Classify returns the class of an error of this package. An error that did not come from the server is an Outage: a broken network
// must never turn a row into a dead letter.
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
	case errors.Is(err, errRaced):
		return Contended
	}
	if code := sqlState(err); code != "" {
		return classOfState(code)
	}
	return Outage
}

// classOfState maps a SQLSTATE to a class. For a list see https://www.postgresql.org/docs/15/errcodes-appendix.html
func classOfState(code string) Class {
	if len(code) < len("00") {
		return Outage
	}
	switch code[:2] {
	case
		"08", // connection exception
		"25", // invalid transaction state; 25006 is read-only: a standby, or a disk that has filled up
		"26", // unknown prepared statement: a pooler switched to another session
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
	// 22 data exception, 23 constraint, 54 program limit, P0001 RAISE, and codes that a user's trigger chooses: all are about the
	// rows, not about the server.
	return Refused
}

// isGone reports whether an error means that the server may not come back, or not as a primary: it does not answer, shuts down, or
// accepts no writes.
func isGone(err error) bool {
	code := sqlState(err)
	return Classify(err) == Outage && (code == "" || strings.HasPrefix(code, "57P") || isReadOnly(err))
}

// IsLocked reports whether a statement failed because another transaction held a lock for too long.
func IsLocked(err error) bool { return sqlState(err) == stateLockNotAvailable }

// isBroken reports whether an error of a statement on a mapped table will come back until an operator has acted, although Postgres works:
// the schema or a permission is wrong, the table is a view now, or has a publication but no replica identity, an index is corrupt, or a
// trigger cannot reach another server.
func isBroken(err error) bool {
	switch code := sqlState(err); Classify(err) { //nolint:exhaustive // all others are not
	case Operator:
		return true
	case Refused:
		// The statement has a position only before it runs: it does not fit the table.
		return code != "" && !errors.Is(err, ErrNotStored) && pq.As(err).Position != ""
	case Outage:
		return len(code) >= len("00") && code != stateLockNotAvailable && !slices.Contains([]string{"25", "26", "53", "57"}, code[:2])
	}
	return false
}

// concernsRow reports whether an error of a statement on a mapped table is about one row, although its code has another class: RAISE
// in a trigger chooses its code, and row-level security uses that of a missing permission. Routine is the place in Postgres's source.
func concernsRow(err error) bool {
	e := pq.As(err)
	if e == nil || IsLocked(err) || TooSlow(err) || Classify(err) == Contended || Classify(err) == Refused {
		return false
	}
	return e.Routine == "exec_stmt_raise" || e.Routine == "ExecWithCheckOptions"
}

// errTooSlow means that the statements of a transaction took too long together.
var errTooSlow = errors.New("the transaction took too long")

// TooSlow reports whether a statement exceeded the statement timeout, or a transaction took too long. With fewer rows it may succeed.
func TooSlow(err error) bool {
	if errors.Is(err, errTooSlow) {
		return true
	}
	return sqlState(err) == stateQueryCanceled && !errors.Is(err, context.Canceled)
}

// stateLockNotAvailable is the SQLSTATE lock_not_available, caused by lock_timeout.
const stateLockNotAvailable = "55P03"

// sqlState returns the SQLSTATE of err, or "" if err did not come from the server.
func sqlState(err error) string {
	if e := pq.As(err); e != nil {
		return e.SQLState()
	}
	return ""
}
