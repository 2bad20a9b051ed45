package dashboard

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// deedTimeout bounds what an operator asked for. It goes on when the operator closes the page: an action that is cut off
	// halfway would be the worse surprise.
	deedTimeout = 40 * time.Second
	// noteTimeout bounds each note in the log of actions.
	noteTimeout = 5 * time.Second
	// maxForm bounds the body of our forms: 500 of the longest keys, percent-encoded, and what was shown of them.
	maxForm = 1 << 20
	// maxNamed bounds the counters that one form may name.
	maxNamed = 500
)

// Log keeps what operators did; *store.Store is one.
type Log interface {
	BeginAction(ctx context.Context, who, what, target string) (id int64, err error)
	EndAction(ctx context.Context, id int64, outcome string, failed bool) error
	Actions(ctx context.Context, before int64, limit int) ([]store.Action, error)
	Action(ctx context.Context, id int64) (action store.Action, found bool, err error)
}

// register is where every action passes.
type register struct {
	actions Log
	answers *answers
	log     *slog.Logger
}

// notNoted is why nothing was done.
const notNoted = "Nothing was changed: Postgres does not answer, so it cannot be noted who did what. " +
	"The command line does the same: afterwrite dead, afterwrite flush."

// notMigrated is why nothing was done where Postgres does answer, but has no table to note it in, or does not let us.
const notMigrated = "Nothing was changed, since it cannot be noted who did what: the schema is not up to date, " +
	"or a permission is missing. Run afterwrite migrate."

// whyNotNoted says why an action cannot be noted.
func whyNotNoted(err error) string {
	if store.Classify(err) == store.Operator {
		return notMigrated
	}
	return notNoted
}

// do notes that the visitor is about to do something, does it, and notes how it ended. Its number is that of the note; false
// when it has answered, since it cannot be noted.
func (g *register) do(w http.ResponseWriter, r *http.Request, what, target string, deed func(context.Context) (string, error),
) (int64, bool) {
	visitor := access.Of(r)
	id, err := g.begin(r, what, target)
	if err != nil {
		g.answers.Refuse(w, r, http.StatusServiceUnavailable, whyNotNoted(err))
		return 0, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), deedTimeout)
	defer cancel()
	outcome, err := deed(ctx)
	if err != nil {
		g.log.Warn("an action failed", "action", id, "user", visitor.Name, "what", what, "target", target, "error", err)
		if outcome != "" {
			outcome += "; then "
		}
		outcome += operate.Explain(err).Detail
	}
	g.end(r, id, what, target, outcome, err != nil)
	return id, true
}

// begin notes that something is about to be done; also when the visitor has gone meanwhile, as the deed itself goes on.
func (g *register) begin(r *http.Request, what, target string) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteTimeout)
	defer cancel()
	id, err := g.actions.BeginAction(ctx, access.Of(r).Name, what, target)
	if err != nil {
		g.log.Warn("an action cannot be noted, so it is not done", "user", access.Of(r).Name, "what", what, "error", err)
	}
	return id, err
}

func (g *register) end(r *http.Request, id int64, what, target, outcome string, failed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), noteTimeout)
	defer cancel()
	g.log.Info("action", "action", id, "user", access.Of(r).Name, "what", what, "target", target, "outcome", outcome, "failed", failed)
	if err := g.actions.EndAction(ctx, id, outcome, failed); err != nil {
		g.log.Warn("the end of an action cannot be noted", "action", id, "error", err)
	}
}

// back sends the browser to a page of ours, which shows the action of that number.
func back(w http.ResponseWriter, r *http.Request, path string, query url.Values, id int64) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("did", strconv.FormatInt(id, 10))
	http.Redirect(w, r, path+"?"+query.Encode(), http.StatusSeeOther)
}

// did is the action that the page was sent to with; nil: none, or it cannot be read.
func (g *register) did(r *http.Request) *store.Action {
	id, err := strconv.ParseInt(r.URL.Query().Get("did"), 10, 64)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), noteTimeout)
	defer cancel()
	action, found, err := g.actions.Action(ctx, id)
	if err != nil || !found {
		return nil
	}
	return &action
}

// form reads a form of ours; false when it has answered.
func (g *register) form(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		g.answers.Refuse(w, r, http.StatusBadRequest, "That is not one of this dashboard's forms: nothing was changed.")
		return false
	}
	return true
}

// named reads keys of a form; false when it has answered.
func (g *register) named(w http.ResponseWriter, r *http.Request, texts []string) ([]counter.Key, bool) {
	why := ""
	switch {
	case len(texts) == 0:
		why = "No counter was chosen: nothing was changed. Go back, and tick some."
	case len(texts) > maxNamed:
		why = "Too many counters were chosen: nothing was changed."
	}
	keys := make([]counter.Key, 0, len(texts))
	for _, text := range texts {
		key, err := counter.ParseKey(text)
		if err != nil {
			why = "One of the keys is none: nothing was changed."
			break
		}
		keys = append(keys, key)
	}
	if why != "" {
		g.answers.Refuse(w, r, http.StatusBadRequest, why)
		return nil, false
	}
	return keys, true
}
