package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// defaultPage is the number of dead letters on a page if the query has no limit.
const defaultPage = 100

// deadPage is the answer to a list of dead letters.
type deadPage struct {
	Dead  []operate.DeadLetter `json:"dead"`
	Next  *string              `json:"next"`  // cursor of the next page; null at the end
	Total int64                `json:"total"` // dead letters on all pages
}

// listDead answers with a page of the dead letters.
func (a *admin) listDead(ctx context.Context, c echo.Context) error {
	after, limit, err := readPage(c)
	if err != nil {
		return err
	}
	dead, next, err := a.operator.List(ctx, "", after, limit)
	if err != nil {
		return operate.Explain(err)
	}
	if len(dead) > 0 {
		a.logPostgres(c, dead[0].PostgresErr)
	}
	total, err := a.operator.Count(ctx)
	if err != nil {
		return operate.Explain(err)
	}
	page := deadPage{Dead: dead, Total: max(total, int64(len(dead)))}
	if next != nil {
		cursor := next.String()
		page.Next = &cursor
	}
	return answerJSON(c, page)
}

// showDead answers with one dead letter and its last retry.
func (a *admin) showDead(ctx context.Context, c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	shown, err := a.operator.Show(ctx, key)
	if err != nil {
		return operate.Explain(err)
	}
	a.logPostgres(c, shown.PostgresErr)
	return answerJSON(c, shown)
}

// discarded is the answer to a discard.
type discarded struct {
	Key     counter.Key    `json:"key"`
	Dropped operate.Stored `json:"dropped"` // what Redis had
	Kept    operate.Stored `json:"kept"`    // what Postgres had
	Now     operate.Stored `json:"now"`     // the state after the discard, without later writes
	Written bool           `json:"written"` // the counter was written after the discard; the write is due for a flush
	Refused *string        `json:"refused"` // why Postgres refused the new version; usually null
}

// discardDead resets a dead letter to the state that Postgres has.
func (a *admin) discardDead(ctx context.Context, c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	dead, err := a.operator.Get(ctx, key)
	if err != nil {
		return operate.Explain(err)
	}
	done, err := a.operator.Discard(ctx, dead)
	if err != nil {
		return operate.Explain(err)
	}
	a.Logger.InfoContext(logContext(c), "dead letter discarded", "request_id", requestID(c), "key", key, "dropped", dead.Redis.String(),
		"now", done.Now.String())
	answer := discarded{Key: key, Dropped: dead.Redis, Kept: dead.Postgres, Now: done.Now, Written: done.Written}
	if done.Refused != nil {
		why := done.Refused.Error()
		answer.Refused = &why
	}
	return answerJSON(c, answer)
}

// redriven is the answer to a redrive.
type redriven struct {
	Redriven int           `json:"redriven"` // keys that are due for a flush now
	NotDead  []counter.Key `json:"not_dead"` // keys of the request that are not dead; nothing was done to them
	Complete bool          `json:"complete"` // false: the request ran out of time; repeat it
	Workers  int           `json:"workers"`  // running workers; without any, the keys wait
}

// MaxRedrive bounds the keys in one request: each needs up to five calls to Redis.
const MaxRedrive = 1000

// readRedrive returns the keys to redrive, or nil for all.
func readRedrive(c echo.Context) ([]counter.Key, error) {
	b, err := openBody(c, MaxBodyBytes, nil)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, invalidBody(`the body is empty: send {"keys": [...]} or {"all": true}`)
	}
	defer b.close()
	return b.redrive()
}

// redrive reads the body of a redrive.
func (b *body) redrive() (keys []counter.Key, err error) {
	all := false
	err = b.whole(func(name jsontext.Value) (known bool, err error) {
		switch {
		case isString(name, "keys"):
			keys, err = b.keys(MaxRedrive)
			return true, err
		case isString(name, "all"):
			value, err := b.value()
			if err == nil && value.Kind() != jsontext.KindTrue {
				err = invalidBody("all must be true, not %s", excerpt(string(value)))
			}
			all = true
			return true, err
		}
		return false, nil
	})
	if err == nil && all == (keys != nil) {
		err = invalidBody(`the body must be either {"keys": [...]} or {"all": true}`)
	}
	return keys, err
}

// redriveDead makes dead letters due for a flush.
func (a *admin) redriveDead(ctx context.Context, c echo.Context) error {
	keys, err := readRedrive(c)
	if err != nil {
		return err
	}
	answer := redriven{NotDead: []counter.Key{}, Complete: true}
	if keys == nil {
		var done []counter.Key
		done, err = a.operator.RedriveAll(ctx)
		answer.Redriven = len(done)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			answer.Complete, err = false, nil
		}
	} else {
		var done operate.Redriven
		done, err = a.operator.Redrive(ctx, keys)
		answer.Redriven = len(done.Keys)
		answer.NotDead = append(answer.NotDead, done.NotDead...)
	}
	if answer.Redriven > 0 {
		a.Logger.InfoContext(logContext(c), "dead letters redriven", "request_id", requestID(c), "keys", answer.Redriven)
	}
	if err == nil {
		answer.Workers, err = a.operator.Workers()
	}
	if err != nil {
		return operate.Explain(err)
	}
	return answerJSON(c, answer)
}

// logPostgres logs why an answer shows the row of a dead letter as unknown.
func (a *admin) logPostgres(c echo.Context, err error) {
	if err != nil && a.failures.limit.Allow() {
		a.Logger.WarnContext(logContext(c), "postgres did not answer, so rows are shown as unknown",
			"request_id", requestID(c), "error", err)
	}
}

// readPage reads limit and cursor of a query.
func readPage(c echo.Context) (after operate.Cursor, limit int, err error) {
	query := c.QueryParams()
	limit = defaultPage
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > operate.MaxPage {
			return after, 0, invalidQuery("limit must be 1 to %d, not %s", operate.MaxPage, excerpt(query.Get("limit")))
		}
	}
	if query.Has("cursor") {
		if after, err = operate.ParseCursor(query.Get("cursor")); err != nil {
			return after, 0, invalidQuery("cursor must be the next of the page before, not %s", excerpt(query.Get("cursor")))
		}
	}
	return after, limit, nil
}

func invalidQuery(format string, args ...any) error {
	return &counter.Error{Code: codeInvalidQuery, Detail: fmt.Sprintf(format, args...)}
}
