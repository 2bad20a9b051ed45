package dashboard

import (
	"context"
	"net/http"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	actionsPath = "/actions"

	// actionsPageSize is how many actions a page has.
	actionsPageSize = 100
)

// actionsPage is /actions: what operators did.
type actionsPage struct {
	*page
	*register
}

// actionsData is what actions.html shows.
type actionsData struct {
	Actions []store.Action
	Older   int64 // number that the next page goes on from; 0 at the end
	First   bool
	Unread  bool
	Schema  bool // Postgres does answer, but its schema or a permission is wrong
}

// ServeHTTP lists actions, the newest first.
func (p *actionsPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	before, err := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64)
	if err != nil || before < 0 {
		before = 0
	}
	data := actionsData{First: before == 0}
	data.Actions, err = p.actions.Actions(ctx, before, actionsPageSize+1)
	status := http.StatusOK
	if err != nil {
		p.log.Warn("the actions cannot be read", "error", err)
		data.Unread, data.Schema, status = true, store.Classify(err) == store.Operator, http.StatusServiceUnavailable
	}
	if len(data.Actions) > actionsPageSize {
		data.Actions = data.Actions[:actionsPageSize]
		data.Older = data.Actions[actionsPageSize-1].ID
	}
	p.render(w, r, status, data)
}
