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

	// actionsPageSize is the number of actions on a page.
	actionsPageSize = 100

	// actionTimeout bounds an action. An action continues after the operator closes the page, so that it is not left half done.
	actionTimeout = 40 * time.Second
	// auditTimeout bounds each access to the audit log.
	auditTimeout = 5 * time.Second
)

// AuditLog stores the actions of operators; *store.Store implements it.
type AuditLog interface {
	BeginAction(ctx context.Context, who, what, target string) (id int64, err error)
	EndAction(ctx context.Context, id int64, outcome string, failed bool) error
	Actions(ctx context.Context, before int64, limit int) ([]store.Action, error)
	Action(ctx context.Context, id int64) (action store.Action, found bool, err error)
}

// audit records every action in the audit log, before and after it runs.
type audit struct {
	entries AuditLog
	pages   *authPages
	log     *slog.Logger
}

// auditUnavailable is shown if Postgres does not answer.
const auditUnavailable = "Nothing was changed: Postgres does not answer, so the audit log cannot record it. " +
	"To flush or redrive anyway, run afterwrite flush or afterwrite dead redrive."

// auditMisconfigured is shown if Postgres answers, but the table or a permission is missing.
const auditMisconfigured = "Nothing was changed, because the audit log cannot record it: the schema is not up to date, " +
	"or a permission is missing. Run afterwrite migrate."

// auditFailure explains to the visitor why an action cannot be recorded.
func auditFailure(err error) string {
	if store.Classify(err) == store.Operator {
		return auditMisconfigured
	}
	return auditUnavailable
}

// do records the action, runs it, records its outcome and returns the entry's number. If the action cannot be recorded, do answers 503
// without running it, and returns false.
func (a *audit) do(w http.ResponseWriter, r *http.Request, what, target string, action func(context.Context) (string, error),
) (int64, bool) {
	visitor := auth.Of(r)
	id, err := a.begin(r, what, target)
	if err != nil {
		a.pages.Reject(w, r, http.StatusServiceUnavailable, auditFailure(err))
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

// begin records an action before it runs. Like the action itself, it continues after the visitor has disconnected.
func (a *audit) begin(r *http.Request, what, target string) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), auditTimeout)
	defer cancel()
	id, err := a.entries.BeginAction(ctx, auth.Of(r).Name, what, target)
	if err != nil {
		a.log.Warn("an action could not be recorded, so it was not run", "user", auth.Of(r).Name, "what", what, "error", err)
	}
	return id, err
}

func (a *audit) end(r *http.Request, id int64, what, target, outcome string, failed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), auditTimeout)
	defer cancel()
	a.log.Info("action", "action", id, "user", auth.Of(r).Name, "what", what, "target", target, "outcome", outcome, "failed", failed)
	if err := a.entries.EndAction(ctx, id, outcome, failed); err != nil {
		a.log.Warn("the outcome of an action could not be recorded", "action", id, "error", err)
	}
}

// back redirects the browser to a page that shows the audit log entry id.
func back(w http.ResponseWriter, r *http.Request, path string, query url.Values, id int64) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("did", strconv.FormatInt(id, 10))
	http.Redirect(w, r, path+"?"+query.Encode(), http.StatusSeeOther)
}

// entry returns the audit log entry that the query names, or nil if there is none or it cannot be read.
func (a *audit) entry(r *http.Request) *store.Action {
	id, err := strconv.ParseInt(r.URL.Query().Get("did"), 10, 64)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), auditTimeout)
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
	Older   int64 // the next page shows entries before this one; 0 on the last page
	First   bool

	Failed    bool // the audit log cannot be read
	BadSchema bool // because its table or a permission is missing
}

// ServeHTTP lists the actions, newest first.
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
		p.log.Warn("the audit log could not be read", "error", err)
		data.Failed, data.BadSchema, status = true, store.Classify(err) == store.Operator, http.StatusServiceUnavailable
	}
	if len(data.Actions) > actionsPageSize {
		data.Actions = data.Actions[:actionsPageSize]
		data.Older = data.Actions[actionsPageSize-1].ID
	}
	p.render(w, r, status, data)
}
