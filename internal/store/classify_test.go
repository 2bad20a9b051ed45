package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/stretchr/testify/require"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want Class
	}{
		{nil, None},
		{state("08006"), Outage},    // connection failure
		{state("25006"), Outage},    // read-only
		{state("26000"), Outage},    // unknown prepared statement
		{state("28P01"), Outage},    // password
		{state("3D000"), Outage},    // no such database
		{state("53100"), Outage},    // disk full
		{state("53300"), Outage},    // too many connections
		{state("55P03"), Outage},    // lock_timeout
		{state("57014"), Outage},    // statement_timeout
		{state("57P01"), Outage},    // shutdown
		{state("57P03"), Outage},    // starting up
		{state("58030"), Outage},    // I/O
		{state("XX001"), Outage},    // corruption
		{state("42P01"), Operator},  // no such table
		{state("42501"), Operator},  // permission
		{state("3F000"), Operator},  // no such schema
		{state("40001"), Contended}, // serialization
		{state("40P01"), Contended}, // deadlock
		{state("22021"), Refused},   // not UTF-8
		{state("23514"), Refused},   // CHECK
		{state("54000"), Refused},   // program limit
		{state("P0001"), Refused},   // RAISE
		{state("ZZ999"), Refused},   // a trigger's own
		{ErrInvalid, Refused},
		{ErrNotStored, Refused},
		{context.Canceled, Canceled},
		{context.DeadlineExceeded, Outage},
		{os.ErrDeadlineExceeded, Outage},
		{driver.ErrBadConn, Outage},
		{io.ErrUnexpectedEOF, Outage},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, Outage},
		{ErrUnavailable, Outage},
		{errors.New("unknown"), Outage},
	} {
		require.Equal(t, tc.want, Classify(tc.err), "%v", tc.err)
		if tc.err != nil {
			require.Equal(t, tc.want, Classify(fmt.Errorf("upsert 3 rows: %w", tc.err)), "wrapped: %v", tc.err)
		}
	}
}

func state(code pqerror.Code) error { return &pq.Error{Code: code, Message: "test"} }
