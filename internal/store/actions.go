package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxActions and maxActionAge bound the audit log to about a megabyte, and to 90 days.
	maxActions   = 10_000
	maxActionAge = 90 * 24 * time.Hour

	// maxActionText is the limit for each text of an entry, in bytes.
	maxActionText = 1000

	// MaxActionsPage is the highest limit for Actions.
	MaxActionsPage = 500
)

// Action is an entry of the audit log: an operator's action in the dashboard.
type Action struct {
	ID      int64     `db:"id"`
	At      time.Time `db:"at"`
	Who     string    `db:"who"`
	What    string    `db:"what"`
	Target  string    `db:"target"`
	Outcome *string   `db:"outcome"` // nil: in progress, or its process died
	Failed  bool      `db:"failed"`
}

// beginSQL inserts an entry and deletes old ones. Concurrent calls may leave a few more than maxActions.
const beginSQL = `
WITH begun AS (INSERT INTO {schema}.counters_actions (who, what, target) VALUES ($1, $2, $3) RETURNING id),
     gone AS (DELETE FROM {schema}.counters_actions
              WHERE id <= (SELECT id FROM begun) - $4 OR at < now() - $5::bigint * interval '1 microsecond')
SELECT id FROM begun`

const endSQL = `UPDATE {schema}.counters_actions SET outcome = $2, failed = $3 WHERE id = $1`

const listSQL = `
SELECT id, at, who, what, target, outcome, failed FROM {schema}.counters_actions
WHERE id < $1 OR $1 = 0 ORDER BY id DESC LIMIT $2`

// BeginAction records an action before it is done, and returns its number. Texts are cut after 1,000 bytes.
func (s *Store) BeginAction(ctx context.Context, who, what, target string) (id int64, err error) {
	err = s.guardActions(ctx, "record an action", func(ctx context.Context) error {
		return s.db.GetContext(ctx, &id, s.sql.beginAction, short(who), short(what), short(target), maxActions, maxActionAge.Microseconds())
	})
	return id, err
}

// EndAction records the outcome of an action.
func (s *Store) EndAction(ctx context.Context, id int64, outcome string, failed bool) error {
	return s.guardActions(ctx, "record the outcome of an action", func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, s.sql.endAction, id, short(outcome), failed)
		return err
	})
}

// Actions returns up to limit actions with a number below before, newest first. If before is 0, it begins with the newest. A limit
// that is not between 1 and MaxActionsPage is ErrInvalid.
func (s *Store) Actions(ctx context.Context, before int64, limit int) (actions []Action, err error) {
	if before < 0 || limit < 1 || limit > MaxActionsPage {
		return nil, fmt.Errorf("list actions: %w: before %d, limit %d", ErrInvalid, before, limit)
	}
	err = s.guardActions(ctx, "list actions", func(ctx context.Context) error {
		actions = nil
		return s.db.SelectContext(ctx, &actions, s.sql.listActions, before, limit)
	})
	return actions, err
}

// Action returns the action with this number; found is false if there is none.
func (s *Store) Action(ctx context.Context, id int64) (action Action, found bool, err error) {
	if id <= 0 {
		return Action{}, false, nil
	}
	actions, err := s.Actions(ctx, id+1, 1)
	if err != nil || len(actions) == 0 || actions[0].ID != id {
		return Action{}, false, err
	}
	return actions[0], true, nil
}

// guardActions is guard for the audit log. If its table is missing or forbidden, the breaker ignores that: the table of the counters
// may still work.
func (s *Store) guardActions(ctx context.Context, what string, call func(ctx context.Context) error) error {
	return s.guard(ctx, what, func(ctx context.Context) error {
		err := call(ctx)
		if Classify(err) == Operator {
			return &aboutActionsError{err}
		}
		return err
	})
}

// aboutActionsError is an error of class Operator that concerns only the audit log.
type aboutActionsError struct{ error }

func (e *aboutActionsError) Unwrap() error { return e.error }

func isAboutActions(err error) bool {
	_, ok := errors.AsType[*aboutActionsError](err)
	return ok
}

// short cuts text to maxActionText. It replaces malformed UTF-8 and NUL, which Postgres refuses.
func short(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) <= maxActionText {
		return text
	}
	end := maxActionText - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
