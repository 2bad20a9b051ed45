package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/deadletter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// defaultPage is how many dead letters a page has unless the request says otherwise.
const defaultPage = 100

// deadPage is a part of the list of dead letters.
type deadPage struct {
	Dead  []deadletter.Letter `json:"dead"`
	Next  *string             `json:"next"`  // cursor of the next page; null at the end
	Total int64               `json:"total"` // dead letters there are
}

// listDead answers with a page of the dead letters.
func (a *admin) listDead(ctx context.Context, c echo.Context) error {
	place, limit, err := pageOf(c)
	if err != nil {
		return err
	}
	letters, next, unread, err := a.dead.Page(ctx, place, limit)
	if err != nil {
		return adminError(err)
	}
	a.unread(c, unread)
	total, err := a.dead.Count(ctx)
	if err != nil {
		return adminError(err)
	}
	page := deadPage{Dead: letters, Total: max(total, int64(len(letters)))}
	if letters == nil {
		page.Dead = []deadletter.Letter{}
	}
	if next != nil {
		cursor := encodeCursor(*next)
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
	shown, unread, err := a.dead.Show(ctx, key)
	if err != nil {
		return adminError(err)
	}
	a.unread(c, unread)
	return answerJSON(c, shown)
}

// discarded says what a discard has dropped, and what is left.
type discarded struct {
	Key     counter.Key     `json:"key"`
	Dropped deadletter.Side `json:"dropped"` // what Redis had
	Kept    deadletter.Side `json:"kept"`    // what Postgres had
	Now     deadletter.Side `json:"now"`     // what the next read finds, but for what was written since
	Written bool            `json:"written"` // it was written again since: that is kept, and due for a flush
	Refused *string         `json:"refused"` // why Postgres takes no new version of it; null nearly always
}

// discardDead returns a dead letter to what Postgres has.
func (a *admin) discardDead(ctx context.Context, c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	letter, unread, err := a.dead.Get(ctx, key)
	if err != nil {
		return adminError(err)
	}
	if unread != nil {
		return &counter.Error{
			Code: counter.CodeDatabaseUnavailable, Err: unread,
			Detail: "Postgres did not answer, so it is not known what to return to; nothing was discarded",
		}
	}
	returned, err := a.dead.Discard(ctx, letter)
	if err != nil {
		return adminError(err)
	}
	a.log.InfoContext(logContext(c), "dead letter discarded", "request_id", answerID(c), "key", key, "dropped", letter.Redis.String(),
		"now", returned.Now.String())
	answer := discarded{Key: key, Dropped: letter.Redis, Kept: letter.Postgres, Now: returned.Now, Written: returned.Written}
	if returned.Refused != nil {
		why := returned.Refused.Error()
		answer.Refused = &why
	}
	return answerJSON(c, answer)
}

// redriven says what a redrive has done.
type redriven struct {
	Redriven int           `json:"redriven"` // due for a flush now
	NotDead  []counter.Key `json:"not_dead"` // of those that were named: left alone
	Complete bool          `json:"complete"` // false: there were too many for one request; repeat it
	Workers  int           `json:"workers"`  // that run: with none, they wait
}

// redriveDead makes dead letters due again.
func (a *admin) redriveDead(ctx context.Context, c echo.Context) error {
	keys, err := readRedrive(c)
	if err != nil {
		return err
	}
	answer := redriven{NotDead: []counter.Key{}, Complete: true}
	if keys == nil {
		var done []counter.Key
		done, err = a.dead.RedriveAll(ctx)
		answer.Redriven = len(done)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			answer.Complete, err = false, nil
		}
	} else {
		var done deadletter.Redriven
		done, err = a.dead.Redrive(ctx, keys)
		answer.Redriven = len(done.Keys)
		answer.NotDead = append(answer.NotDead, done.NotDead...)
	}
	if answer.Redriven > 0 {
		a.log.InfoContext(logContext(c), "dead letters redriven", "request_id", answerID(c), "keys", answer.Redriven)
	}
	if err == nil {
		answer.Workers, err = a.dead.Workers()
	}
	if err != nil {
		return adminError(err)
	}
	return answerJSON(c, answer)
}

// unread logs why Postgres's side is shown as unknown.
func (a *admin) unread(c echo.Context, unread error) {
	if unread != nil && a.failures.limit.Allow() {
		a.log.WarnContext(logContext(c), "postgres did not answer, so its side is shown as unknown",
			"request_id", answerID(c), "error", unread)
	}
}

// asDeadError returns what the client is told of an error that says something about a dead letter.
func asDeadError(err error) (*counter.Error, bool) {
	if _, ok := errors.AsType[*deadletter.NotDeadError](err); ok {
		return &counter.Error{Code: counter.CodeNotFound, Detail: "this counter is not a dead letter"}, true
	}
	if _, ok := errors.AsType[*deadletter.ChangedError](err); ok {
		return &counter.Error{Code: codeConflict, Detail: "it was written meanwhile, and nothing was discarded; look at it again"}, true
	}
	if e, ok := errors.AsType[*deadletter.StillDeadError](err); ok {
		code := codeConflict
		if e.Err != nil && store.Classify(e.Err) != store.Refused {
			code = counter.CodeDatabaseUnavailable
		}
		return &counter.Error{Code: code, Detail: e.Why, Err: e.Err}, true
	}
	return nil, false
}

// pageOf reads the query of a list.
func pageOf(c echo.Context) (place deadletter.Place, limit int, err error) {
	query := c.QueryParams()
	limit = defaultPage
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > deadletter.MaxPage {
			return place, 0, invalidQuery("limit is %s: it takes 1 to %d", excerpt(query.Get("limit")), deadletter.MaxPage)
		}
	}
	if query.Has("cursor") {
		place, err = decodeCursor(query.Get("cursor"))
	}
	return place, limit, err
}

// encodeCursor makes a cursor of a place. It is not secret, and no promise: clients are to send back what they got.
func encodeCursor(p deadletter.Place) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%s", p.Shard, p.Key))
}

func decodeCursor(cursor string) (deadletter.Place, error) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	shard, key, _ := strings.Cut(string(text), ":")
	number, shardErr := strconv.ParseUint(shard, 10, 16)
	parsed, keyErr := counter.ParseKey(key)
	if err != nil || shardErr != nil || keyErr != nil {
		return deadletter.Place{}, invalidQuery("cursor is %s: it takes next of the page before", excerpt(cursor))
	}
	return deadletter.Place{Shard: counter.Shard(number), Key: parsed}, nil
}

func invalidQuery(format string, args ...any) error {
	return &counter.Error{Code: codeInvalidQuery, Detail: fmt.Sprintf(format, args...)}
}
