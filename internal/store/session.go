package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// pqConn has the interfaces that a connection of lib/pq implements.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// session is a connection of lib/pq on which a statement ends as soon as its context is done, even if the server does not answer.
type session struct {
	pqConn

	net        *boundedConn
	begin      string      // a statement to run at the start of each transaction; "": none
	stale      atomic.Bool // the session must not be used again
	pool       *connector
	generation int64 // of the pool when the login ended
}

func newSession(conn driver.Conn, net *boundedConn, begin string) (*session, error) {
	c, ok := conn.(pqConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("unexpected driver %T", conn), conn.Close())
	}
	return &session{pqConn: c, net: net, begin: begin}, nil
}

// ExecContext implements driver.ExecerContext.
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	stop := s.net.watch(ctx)
	defer stop()
	result, err := s.pqConn.ExecContext(ctx, query, args)
	return result, s.note(ctx, err)
}

// QueryContext implements driver.QueryerContext. It watches the context until the rows are closed.
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	stop := s.net.watch(ctx)
	rows, err := s.pqConn.QueryContext(ctx, query, args)
	if err != nil {
		stop()
		return nil, s.note(ctx, err)
	}
	return &watchedRows{Rows: rows, stop: stop}, nil
}

// BeginTx implements driver.ConnBeginTx.
func (s *session) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	stop := s.net.watch(ctx)
	defer stop()
	tx, err := s.pqConn.BeginTx(ctx, options)
	if sqlState(err) == stateUnsupported {
		err = fmt.Errorf("%w: %v", errStandby, err) //nolint:errorlint // its class would be Refused
	}
	if err != nil {
		return nil, s.note(ctx, err)
	}
	if s.begin != "" {
		if _, err := s.pqConn.ExecContext(ctx, s.begin, nil); err != nil {
			return nil, errors.Join(err, tx.Rollback())
		}
	}
	return &watchedTx{Tx: tx, session: s, ctx: ctx}, nil
}

// IsValid implements driver.Validator. database/sql closes a connection that is not valid.
func (s *session) IsValid() bool {
	return !s.stale.Load() && s.generation == s.pool.generation.Load() && s.net.usable() && s.pqConn.IsValid()
}

// ResetSession implements driver.SessionResetter. database/sql calls it before it uses an idle session again.
func (s *session) ResetSession(ctx context.Context) error {
	if !s.IsValid() {
		return driver.ErrBadConn
	}
	return s.pqConn.ResetSession(ctx)
}

// note marks the session as stale if the server is read-only, or did not answer within the limit of its connection, and retires those that
// were opened before. After a failover the old primary may be frozen, or continue as a standby; a new connection reaches the new primary.
func (s *session) note(ctx context.Context, err error) error {
	silent := errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil // otherwise the caller may have given up
	if silent || isReadOnly(err) {
		s.stale.Store(true)
		s.pool.retire(s.generation)
	}
	return err
}

const (
	// stateReadOnly is the SQLSTATE read_only_sql_transaction.
	stateReadOnly = "25006"
	// stateUnsupported is the SQLSTATE feature_not_supported, a standby's answer to BEGIN READ WRITE, with which lib/pq begins each
	// transaction.
	stateUnsupported = "0A000"
)

// errStandby is that answer.
var errStandby = errors.New("the server is a standby")

// isReadOnly reports whether the server refused a statement because it accepts no writes.
func isReadOnly(err error) bool { return sqlState(err) == stateReadOnly || errors.Is(err, errStandby) }

// watchedRows stops watching the context when it is closed.
type watchedRows struct {
	driver.Rows

	stop func()
}

// Close implements driver.Rows.
func (r *watchedRows) Close() error {
	defer r.stop()
	return r.Rows.Close()
}

// watchedTx is a transaction that ends as soon as its context is done, even if the server does not answer. If that happens during Commit,
// the server may have committed.
type watchedTx struct {
	driver.Tx

	session *session
	ctx     context.Context //nolint:containedctx // that of BeginTx: Commit and Rollback have none
}

// Commit implements driver.Tx.
func (t *watchedTx) Commit() error { return t.end(t.Tx.Commit) }

// Rollback implements driver.Tx. If the context is done already, the session ends, and with it the transaction.
func (t *watchedTx) Rollback() error { return t.end(t.Tx.Rollback) }

func (t *watchedTx) end(call func() error) error {
	stop := t.session.net.watch(t.ctx)
	defer stop()
	return t.session.note(t.ctx, call())
}
