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
	// maxActions and maxActionAge bound what is kept: about a megabyte, and a quarter of a year.
	maxActions   = 10_000
	maxActionAge = 90 * 24 * time.Hour

	// maxActionText bounds each text of an action, bytes.
	maxActionText = 1000

	// MaxActionsPage is the most that Actions returns.
	MaxActionsPage = 500
)

// Action is something that an operator did in the dashboard.
type Action struct {
	ID      int64     `db:"id"`
	At      time.Time `db:"at"`
	Who     string    `db:"who"`
	What    string    `db:"what"`
	Target  string    `db:"target"`
	Outcome *string   `db:"outcome"` // nil: under way, or its process died
	Failed  bool      `db:"failed"`
}

// beginSQL numbers the action and forgets old ones, through the primary key: there are never more than some too many.
const beginSQL = `
WITH begun AS (INSERT INTO {schema}.counters_actions (who, what, target) VALUES ($1, $2, $3) RETURNING id),
     gone AS (DELETE FROM {schema}.counters_actions
              WHERE id <= (SELECT id FROM begun) - $4 OR at < now() - $5::bigint * interval '1 microsecond')
SELECT id FROM begun`

const endSQL = `UPDATE {schema}.counters_actions SET outcome = $2, failed = $3 WHERE id = $1`

const listSQL = `
SELECT id, at, who, what, target, outcome, failed FROM {schema}.counters_actions
WHERE id < $1 OR $1 = 0 ORDER BY id DESC LIMIT $2`

// BeginAction notes that somebody is about to do something, and returns its number. What is longer than 1,000 bytes is cut.
func (s *Store) BeginAction(ctx context.Context, who, what, target string) (id int64, err error) {
	err = s.guardActions(ctx, "note an action", func(ctx context.Context) error {
		return s.db.GetContext(ctx, &id, s.sql.beginAction, short(who), short(what), short(target), maxActions, maxActionAge.Microseconds())
	})
	return id, err
}

// EndAction notes how an action ended.
func (s *Store) EndAction(ctx context.Context, id int64, outcome string, failed bool) error {
	return s.guardActions(ctx, "note the end of an action", func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, s.sql.endAction, id, short(outcome), failed)
		return err
	})
}

// Actions returns up to limit (1 to MaxActionsPage, else ErrInvalid) actions with a number below before, the newest first; a
// before of 0 is above all.
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

// Action returns the action of that number; false when there is none.
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

// guardActions is guard, but for what the breaker makes of a table of actions that is missing or forbidden: nothing, since the
// counters' own may be well.
func (s *Store) guardActions(ctx context.Context, what string, call func(ctx context.Context) error) error {
	return s.guard(ctx, what, func(ctx context.Context) error {
		err := call(ctx)
		if Classify(err) == Operator {
			return &aboutActionsError{err}
		}
		return err
	})
}

// aboutActionsError is an error of class Operator that is about the table of actions only.
type aboutActionsError struct{ error }

func (e *aboutActionsError) Unwrap() error { return e.error }

func isAboutActions(err error) bool {
	_, ok := errors.AsType[*aboutActionsError](err)
	return ok
}

// short makes text fit for a row: Postgres takes neither broken UTF-8 nor NUL.
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
