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

// defaultPage is how many dead letters a page has without a limit in the query.
const defaultPage = 100

// deadPage is a page of the list of dead letters.
type deadPage struct {
	Dead  []operate.DeadLetter `json:"dead"`
	Next  *string              `json:"next"`  // cursor of the next page; null at the end
	Total int64                `json:"total"` // of all pages
}

// listDead answers with a page of the dead letters.
func (a *admin) listDead(ctx context.Context, c echo.Context) error {
	after, limit, err := pageOf(c)
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

// showDead answers with everything about one dead letter.
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
	Now     operate.Stored `json:"now"`     // what the next read finds, without what was written since
	Written bool           `json:"written"` // it was written again since: that is kept, and due for a flush
	Refused *string        `json:"refused"` // why Postgres takes no new version of it; null nearly always
}

// discardDead returns a dead letter to what Postgres has.
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
	a.Logger.InfoContext(logContext(c), "dead letter discarded", "request_id", answerID(c), "key", key, "dropped", dead.Redis.String(),
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
	Redriven int           `json:"redriven"` // due for a flush now
	NotDead  []counter.Key `json:"not_dead"` // named, but left alone
	Complete bool          `json:"complete"` // false: the time was over; repeat the request
	Workers  int           `json:"workers"`  // running; with none, the keys wait
}

// MaxRedrive is the most keys that one request may name: each takes up to five calls to Redis.
const MaxRedrive = 1000

// readRedrive reads what to redrive: the keys, or nil for all.
func readRedrive(c echo.Context) ([]counter.Key, error) {
	b, err := openBody(c, MaxBodyBytes, nil)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, invalidBody(`the body is empty: it takes {"keys": [...]} or {"all": true}`)
	}
	defer b.close()
	return b.redrive()
}

// redrive reads the whole body.
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
				err = invalidBody("all is %s: it takes true", excerpt(string(value)))
			}
			all = true
			return true, err
		}
		return false, nil
	})
	if err == nil && all == (keys != nil) {
		err = invalidBody(`it takes either {"keys": [...]} or {"all": true}`)
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
		a.Logger.InfoContext(logContext(c), "dead letters redriven", "request_id", answerID(c), "keys", answer.Redriven)
	}
	if err == nil {
		answer.Workers, err = a.operator.Workers()
	}
	if err != nil {
		return operate.Explain(err)
	}
	return answerJSON(c, answer)
}

// logPostgres logs why what Postgres has is shown as unknown.
func (a *admin) logPostgres(c echo.Context, err error) {
	if err != nil && a.failures.limit.Allow() {
		a.Logger.WarnContext(logContext(c), "postgres did not answer, so what it has is shown as unknown",
			"request_id", answerID(c), "error", err)
	}
}

// pageOf reads the query of a list: limit and cursor.
func pageOf(c echo.Context) (after operate.Cursor, limit int, err error) {
	query := c.QueryParams()
	limit = defaultPage
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > operate.MaxPage {
			return after, 0, invalidQuery("limit is %s: it takes 1 to %d", excerpt(query.Get("limit")), operate.MaxPage)
		}
	}
	if query.Has("cursor") {
		if after, err = operate.ParseCursor(query.Get("cursor")); err != nil {
			return after, 0, invalidQuery("cursor is %s: it takes next of the page before", excerpt(query.Get("cursor")))
		}
	}
	return after, limit, nil
}

func invalidQuery(format string, args ...any) error {
	return &counter.Error{Code: codeInvalidQuery, Detail: fmt.Sprintf(format, args...)}
}
