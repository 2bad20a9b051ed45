package dashboard

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	keyPath = "/keys"

	// flushWait bounds the wait for the result of a flush.
	flushWait = 5 * time.Second
)

// keyPage is /keys?key=: everything about one counter.
type keyPage struct {
	*page
	*audit

	cache     *cache.Cache
	store     Store
	historian Historian // nil: none
	operator  *operate.Service
}

// keyData is what key.html shows.
type keyData struct {
	Asked   string // the visitor's input
	Invalid string // the reason why Asked is not a key
	Key     counter.Key
	Shard   counter.Shard
	State   keyState
	Entry   *cache.Inspected // nil: Redis does not answer
	Since   time.Duration    // age of the oldest unsynced write
	Row     *counter.Row
	Unread  bool         // Postgres does not answer
	Landing *landingView // nil: the key has no mapping, or Postgres does not answer
	Dead    *cache.Dead
	Tasks   []taskView
	History *historyView  // nil: there is none, or it cannot be read
	May     bool          // the visitor is an operator
	Did     *store.Action // the action that led to this page, or nil
}

// keyState describes the state of a counter in a word and a sentence.
type keyState struct {
	Class, Word, Text string
	Flushable         bool
}

// taskView is one of Asynq's tasks for a counter.
type taskView struct {
	ID, Queue, State, LastError string
	Retried                     int
}

// ServeHTTP shows a counter. It changes nothing, and does not hydrate the counter.
func (p *keyPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := keyData{Asked: r.URL.Query().Get("key"), May: auth.Of(r).CanAct()}
	if data.Invalid = invalidKey(data.Asked); data.Invalid != "" {
		data.Asked = cut(data.Asked, maxSearch)
		p.render(w, r, http.StatusBadRequest, data)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	data.Key = counter.Key(data.Asked)
	data.Shard = p.cache.Shard(data.Key)
	status := http.StatusOK
	if err := p.inspect(ctx, &data); err != nil {
		p.log.Warn("a counter could not be read", "key", data.Key, "error", err)
		data.Entry, status = nil, http.StatusServiceUnavailable
	}
	if status == http.StatusOK && !data.Unread {
		data.History = p.history(ctx, data.Key)
	}
	if !data.Unread {
		data.Did = p.entry(r) // last, since a Postgres that hangs uses up the timeout
	}
	p.render(w, r, status, data)
}

// inspect reads Redis before Postgres. In the other order, a flush in between would make the row seem to be behind.
func (p *keyPage) inspect(ctx context.Context, data *keyData) error {
	entries, err := p.cache.Inspect(ctx, []counter.Key{data.Key})
	if err != nil {
		return err
	}
	now, err := p.cache.Now(ctx)
	if err != nil {
		return err
	}
	if dead, found, err := p.cache.DeadLetter(ctx, data.Key); err != nil {
		return err
	} else if found {
		data.Dead = &dead
	}
	if data.Tasks, err = p.tasks(data.Key); err != nil {
		return err
	}
	row, found := p.readPostgres(ctx, data)
	entry := entries[0]
	data.Entry = &entry
	if since := entry.Lineage / 1000; entry.Dirty && !entry.Aside && since > 0 { // an epoch's ID is its start in µs
		data.Since = time.Duration(now-since) * time.Millisecond
	}
	data.State = stateOf(entry, row, found, data.Unread)
	if entry.Missing && !entry.Dirty && found && data.Row == nil {
		data.State = keyState{
			Class: "good", Word: "in its column only",
			Text: "No write through afterwrite has reached Postgres yet. The counter starts from the value of its column.",
		}
	}
	return nil
}

// readPostgres reads the counter's row, and where it lands. Without a row in counters, row has the value of the column, if found.
func (p *keyPage) readPostgres(ctx context.Context, data *keyData) (row counter.Row, found bool) {
	landing, mapped, landingErr := p.store.Landing(ctx, data.Key)
	rows, err := p.store.Read(ctx, []counter.Key{data.Key})
	if err != nil && !store.Unread(err)[data.Key] { // else only its column cannot be read
		p.log.Warn("postgres did not answer, so its row is not shown", "key", data.Key, "error", err)
		data.Unread = true
		return counter.Row{}, false
	}
	row, found = rows[data.Key]
	if mapped {
		data.Landing = newLandingView(landing, landingErr)
	}
	if found && (!mapped || landingErr != nil || landing.Counted) {
		data.Row = &row
	}
	return row, found
}

func stateOf(entry cache.Inspected, row counter.Row, found, unread bool) keyState {
	switch {
	case entry.Dead:
		return keyState{Class: "bad", Word: "dead", Text: "Postgres refused it until the attempts were used up. It still accepts writes."}
	case entry.Aside, entry.RetryAt > 0:
		return keyState{
			Class: "warn", Word: "waits for a retry", Flushable: true,
			Text: "Postgres refused it, and it is retried with growing pauses; or its row was locked or slow, and it is retried " +
				"within seconds.",
		}
	case entry.Dirty && entry.Missing:
		return keyState{
			Class: "warn", Word: "dirty without an entry", Flushable: true,
			Text: "Its entry was deleted from Redis by hand. The next flush skips it.",
		}
	case entry.Dirty:
		return keyState{
			Class: "warn", Word: "dirty", Flushable: true,
			Text: "It was written and waits for its flush, which is normal for a moment.",
		}
	case unread:
		return keyState{Word: "clean in Redis", Text: "Postgres does not answer, so its row is not shown."}
	case entry.Missing && !found:
		return keyState{Word: "unknown", Text: "Neither Redis nor Postgres has it: it was never written, or was deleted long ago."}
	case entry.Missing:
		return keyState{
			Class: "good", Word: "in Postgres only",
			Text: "It was evicted from Redis. The next read loads it again.",
		}
	}
	class := operate.Compare(entry, row, found)
	if class == operate.ClassEqual {
		return keyState{Class: "good", Word: "clean", Text: "Redis and Postgres agree."}
	}
	for _, e := range operate.Explanations() {
		if e.Class == class {
			return keyState{Class: "bad", Word: string(class), Text: e.Text + " (see `afterwrite verify`)"}
		}
	}
	return keyState{Word: string(class)}
}

// tasks returns the key's own tasks in Asynq. A drain of its shard may flush the key too.
func (p *keyPage) tasks(key counter.Key) ([]taskView, error) {
	found, err := p.operator.Tasks(key)
	if err != nil {
		return nil, err
	}
	var views []taskView
	for _, info := range found {
		views = append(views, taskView{
			ID: info.ID, Queue: info.Queue, State: info.State.String(), Retried: info.Retried, LastError: info.LastErr,
		})
	}
	return views, nil
}

// flushNow sends a flush of the counter, even if the counter waits for a retry, since the operator may have removed the cause.
func (p *keyPage) flushNow(w http.ResponseWriter, r *http.Request) {
	if !p.form(w, r) {
		return
	}
	keys, ok := p.named(w, r, r.PostForm["key"])
	if !ok {
		return
	}
	id, ok := p.do(w, r, "flush", listed(keys), func(ctx context.Context) (string, error) {
		left, err := p.operator.FlushAside(ctx, keys, flushWait)
		switch {
		case err != nil:
			return "", err
		case left.Dead > 0:
			return "it is dead: a flush does not write it to Postgres", nil
		case left.Retrying > 0:
			return "Postgres refused it, or its row is locked: it waits for a retry", nil
		case left.Dirty == 0:
			return "Postgres has it", nil
		}
		workers, err := p.operator.Workers()
		if err == nil && workers == 0 {
			return "requested, but no worker is running", nil
		}
		return "requested; Postgres did not get it within " + flushWait.String(), err
	})
	if ok {
		back(w, r, keyPath, url.Values{"key": {string(keys[0])}}, id)
	}
}
