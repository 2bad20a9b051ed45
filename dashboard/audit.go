package dashboard

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	actionsPath = "/actions"

	// actionsPageSize is how many actions a page has.
	actionsPageSize = 100

	// actionTimeout bounds an action. It goes on after the operator closes the page, because half an action would be a worse surprise.
	actionTimeout = 40 * time.Second
	// noteTimeout bounds each write to the audit log.
	noteTimeout = 5 * time.Second
)

// AuditLog stores what operators did; *store.Store implements it.
type AuditLog interface {
	BeginAction(ctx context.Context, who, what, target string) (id int64, err error)
	EndAction(ctx context.Context, id int64, outcome string, failed bool) error
	Actions(ctx context.Context, before int64, limit int) ([]store.Action, error)
	Action(ctx context.Context, id int64) (action store.Action, found bool, err error)
}

// audit writes every action to the audit log, before and after it is done.
type audit struct {
	entries AuditLog
	pages   *authPages
	log     *slog.Logger
}

// notNoted says why nothing was done.
const notNoted = "Nothing was changed: Postgres does not answer, so it cannot be noted who did what. " +
	"The command line does the same: afterwrite dead, afterwrite flush."

// notMigrated says the same if Postgres answers, but the table or a permission is missing.
const notMigrated = "Nothing was changed, since it cannot be noted who did what: the schema is not up to date, " +
	"or a permission is missing. Run afterwrite migrate."

// whyNotNoted says why an action cannot be written to the audit log.
func whyNotNoted(err error) string {
	if store.Classify(err) == store.Operator {
		return notMigrated
	}
	return notNoted
}

// do writes an entry to the audit log, runs the action, and adds the outcome to the entry, whose number it returns. If the entry cannot
// be written, it does nothing, answers the request, and returns false.
func (a *audit) do(w http.ResponseWriter, r *http.Request, what, target string, action func(context.Context) (string, error),
) (int64, bool) {
	visitor := auth.Of(r)
	id, err := a.begin(r, what, target)
	if err != nil {
		a.pages.Reject(w, r, http.StatusServiceUnavailable, whyNotNoted(err))
		return 0, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actionTimeout)
	defer cancel()
	outcome, err := action(ctx)
	if err != nil {
		a.log.Warn("an action failed", "action", id, "user", visitor.Name, "what", what, "target", target, "error", err)
		if outcome != "" {
			outcome += "; then "
		}
		outcome += operate.Explain(err).Detail
	}
	a.end(r, id, what, target, outcome, err != nil)
	return id, true
}

// begin writes an entry before an action. Like the action itself, it goes on after the visitor has gone.
func (a *audit) begin(r *http.Request, what, target string) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteTimeout)
	defer cancel()
	id, err := a.entries.BeginAction(ctx, auth.Of(r).Name, what, target)
	if err != nil {
		a.log.Warn("an action cannot be written to the audit log, so it is not done", "user", auth.Of(r).Name, "what", what, "error", err)
	}
	return id, err
}

func (a *audit) end(r *http.Request, id int64, what, target, outcome string, failed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteTimeout)
	defer cancel()
	a.log.Info("action", "action", id, "user", auth.Of(r).Name, "what", what, "target", target, "outcome", outcome, "failed", failed)
	if err := a.entries.EndAction(ctx, id, outcome, failed); err != nil {
		a.log.Warn("the outcome of an action cannot be written to the audit log", "action", id, "error", err)
	}
}

// back sends the browser to a page, which shows the audit log entry with that number.
func back(w http.ResponseWriter, r *http.Request, path string, query url.Values, id int64) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("did", strconv.FormatInt(id, 10))
	http.Redirect(w, r, path+"?"+query.Encode(), http.StatusSeeOther)
}

// did returns the audit log entry that back has put into the query; nil if there is none, or it cannot be read.
func (a *audit) did(r *http.Request) *store.Action {
	id, err := strconv.ParseInt(r.URL.Query().Get("did"), 10, 64)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), noteTimeout)
	defer cancel()
	action, found, err := a.entries.Action(ctx, id)
	if err != nil || !found {
		return nil
	}
	return &action
}

// actionsPage is /actions: the audit log.
type actionsPage struct {
	*page
	*audit
}

// actionsData is what actions.html shows.
type actionsData struct {
	Actions []store.Action
	Older   int64 // number that the next page goes on from; 0 at the end
	First   bool
	Unread  bool
	Schema  bool // Postgres answers, but its schema or a permission is wrong
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
	data.Actions, err = p.entries.Actions(ctx, before, actionsPageSize+1)
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
