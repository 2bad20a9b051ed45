package dashboard

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// countersPageSize is the number of counters on a page.
const countersPageSize = 100

// Lister lists counters; *catalog.Catalog implements it.
type Lister interface {
	// List returns a page of the counters whose keys begin with prefix and are greater than after. Every error is a *counter.Error.
	List(ctx context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error)
	// Top returns the n largest counters whose keys begin with prefix. CodeNotFound says that it needs an index, and how to create it.
	Top(ctx context.Context, prefix string, n int) (catalog.Top, error)
}

// countersPage is /keys: it lists counters, or shows the one that the query names.
type countersPage struct {
	*page

	lister Lister
	one    *keyPage
}

// countersData is what counters.html shows.
type countersData struct {
	Asked   string // the prefix
	ByValue bool   // the largest counters, instead of all in the order of their keys
	Invalid string // the reason why Asked is not the beginning of a key
	Rows    []counterRow
	Next    counter.Key // the cursor of the next page; "" on the last page
	First   bool        // this is the first page
	Partial bool        // there may be larger counters than those in Rows

	Failed counter.Code // the reason why there is no list, or ""
	Enable string       // what to do to list by value, or ""
}

// counterRow is a counter of the list.
type counterRow struct {
	counter.Counter

	Unread string // the reason why it cannot be read, or ""
}

// ServeHTTP lists counters. It changes nothing, and does not hydrate them.
func (p *countersPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	data := countersData{Asked: query.Get("prefix"), ByValue: query.Get("by") == "value"}
	switch {
	case query.Get("key") != "":
		p.one.ServeHTTP(w, r)
		return
	case data.Asked != "" && query.Has("open"):
		http.Redirect(w, r, keyPath+"?"+url.Values{"key": {data.Asked}}.Encode(), http.StatusSeeOther)
		return
	}
	if data.Invalid = invalidKey(data.Asked); data.Asked != "" && data.Invalid != "" {
		data.Asked = cut(data.Asked, maxSearch)
		p.render(w, r, http.StatusBadRequest, data)
		return
	}
	data.Invalid = ""
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	status := p.list(ctx, query.Get("after"), &data)
	p.render(w, r, status, data)
}

// list reads the counters, and returns the status of the answer.
func (p *countersPage) list(ctx context.Context, cursor string, data *countersData) int {
	var err error
	if data.ByValue {
		err = p.listByValue(ctx, data)
	} else {
		err = p.listByKey(ctx, cursor, data)
	}
	if err == nil {
		return http.StatusOK
	}
	data.Failed = counter.CodeOf(err)
	if e, ok := errors.AsType[*counter.Error](err); ok && e.Code == counter.CodeNotFound {
		data.Enable = e.Detail
		return http.StatusOK
	}
	p.shared.log.Warn("counters could not be listed", "prefix", data.Asked, "error", err)
	return http.StatusServiceUnavailable
}

func (p *countersPage) listByKey(ctx context.Context, cursor string, data *countersData) error {
	after, err := counter.ParseKey(cursor)
	if err != nil {
		after = "" // the first page
	}
	data.First = after == ""
	page, err := p.lister.List(ctx, data.Asked, after, countersPageSize)
	data.Rows, data.Next = counterRows(page.Results), page.Next
	return err
}

func (p *countersPage) listByValue(ctx context.Context, data *countersData) error {
	data.First = true
	top, err := p.lister.Top(ctx, data.Asked, countersPageSize)
	data.Rows, data.Partial = counterRows(top.Results), !top.Complete
	return err
}

func counterRows(results []counter.Result) []counterRow {
	rows := make([]counterRow, len(results))
	for i, result := range results {
		rows[i].Counter = result.Counter
		if result.Err != nil {
			rows[i].Unread = "its page may say why"
			if e, ok := errors.AsType[*counter.Error](result.Err); ok && e.Detail != "" {
				rows[i].Unread = e.Detail
			}
		}
	}
	return rows
}

// invalidKey returns the reason why a text is not a key, or "".
func invalidKey(text string) string {
	_, err := counter.ParseKey(text)
	if e, ok := errors.AsType[*counter.Error](err); ok {
		return e.Detail
	}
	return ""
}
