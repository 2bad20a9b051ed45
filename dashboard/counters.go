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
	Invalid string // the reason why Asked is not the beginning of a key
	Rows    []counterRow
	Next    counter.Key // the cursor of the next page; "" on the last page
	First   bool        // this is the first page

	Failed counter.Code // the reason why there is no list, or ""
}

// counterRow is a counter of the list.
type counterRow struct {
	counter.Counter

	Unread string // the reason why it cannot be read, or ""
}

// ServeHTTP lists counters. It changes nothing, and does not hydrate them.
func (p *countersPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	data := countersData{Asked: query.Get("prefix")}
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
	after, err := counter.ParseKey(query.Get("after"))
	if err != nil {
		after = "" // the first page
	}
	data.First, data.Invalid = after == "", ""
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	page, err := p.lister.List(ctx, data.Asked, after, countersPageSize)
	if err != nil {
		p.shared.log.Warn("counters could not be listed", "prefix", data.Asked, "after", after, "error", err)
		data.Failed = counter.CodeOf(err)
		p.render(w, r, http.StatusServiceUnavailable, data)
		return
	}
	data.Rows, data.Next = counterRows(page.Results), page.Next
	p.render(w, r, http.StatusOK, data)
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
