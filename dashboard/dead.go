package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	deadPath = "/dead"

	// deadPageSize is the number of dead letters on a page.
	deadPageSize = 50
	// pageTimeout bounds the reads for a page.
	pageTimeout = 5 * time.Second
	// maxSearch bounds the text of a search, in bytes.
	maxSearch = counter.MaxKeyBytes
	// redriveWait bounds the wait for the result of a redrive.
	redriveWait = 3 * time.Second
)

// deadPage is /dead and its forms.
type deadPage struct {
	*page
	*audit

	redriveAll, discard *page
	operator            *operate.Service
}

func newDeadPage(s *shared, a *audit, operator *operate.Service) *deadPage {
	return &deadPage{
		page: newPage(s, deadPath, "Dead letters", "dead.html"), audit: a, operator: operator,
		redriveAll: newPage(s, deadPath, "Redrive all dead letters", "redrive.html"),
		discard:    newPage(s, deadPath, "Discard dead letters", "discard.html"),
	}
}

// deadData is what dead.html shows.
type deadData struct {
	Letters  []letterView
	Total    int64
	Search   string
	More     string // cursor of the next page; "" on the last page
	First    bool   // this is the first page
	Workers  int
	Unread   bool          // Postgres does not answer
	NoRedis  bool          // Redis does not answer
	May      bool          // the visitor is an operator
	Did      *store.Action // the action that led to this page, or nil
	Explains bool          // there are no dead letters, so the page explains them
}

// letterView is a row of the list.
type letterView struct {
	operate.DeadLetter

	Age     time.Duration
	Pending string // Redis's value minus Postgres's, such as +3; "" if it is unknown
}

func newLetterView(d operate.DeadLetter) letterView {
	v := letterView{DeadLetter: d, Age: time.Since(d.Since)}
	switch {
	case d.Redis.State == operate.StateUnknownBase:
		v.Pending = signed(d.Redis.Value)
	case d.Redis.State == operate.StateValue && d.Postgres.State != operate.StateUnknown:
		pending := d.Redis.Value - d.Postgres.Value
		if (pending > 0) == (d.Redis.Value > d.Postgres.Value) { // else the difference overflows
			v.Pending = signed(pending)
		}
	}
	return v
}

// ServeHTTP lists dead letters.
func (p *deadPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	query := r.URL.Query()
	data := deadData{Search: cut(query.Get("q"), maxSearch), May: auth.Of(r).CanAct(), First: query.Get("after") == ""}
	after, _ := operate.ParseCursor(query.Get("after")) // an invalid cursor means the first page
	dead, next, err := p.operator.List(ctx, data.Search, after, deadPageSize)
	if err == nil {
		data.Total, err = p.operator.Count(ctx)
	}
	if err == nil {
		data.Workers, err = p.operator.Workers()
	}
	data.Unread = len(dead) > 0 && dead[0].PostgresErr != nil
	if !data.Unread {
		data.Did = p.entry(r) // last, since a Postgres that hangs uses up the timeout
	}
	if err != nil {
		p.log.Warn("the dead letters could not be read", "error", err)
		data.NoRedis = true
		p.render(w, r, http.StatusServiceUnavailable, data)
		return
	}
	if data.Unread {
		p.log.Warn("postgres did not answer, so its value is shown as unknown", "error", dead[0].PostgresErr)
	}
	for _, d := range dead {
		data.Letters = append(data.Letters, newLetterView(d))
	}
	if next != nil {
		data.More = next.String()
	}
	data.Explains = len(data.Letters) == 0 && data.Search == "" && data.First
	p.render(w, r, http.StatusOK, data)
}

// redrive makes dead letters due again: the ticked ones, the one whose button was pressed, or, after a confirmation, all.
func (p *deadPage) redrive(w http.ResponseWriter, r *http.Request) {
	if !p.form(w, r) {
		return
	}
	if r.PostForm.Get("all") != "" {
		p.redriveEvery(w, r)
		return
	}
	keys, ok := p.named(w, r, chosen(r.PostForm))
	if !ok {
		return
	}
	id, ok := p.do(w, r, "redrive", listed(keys), func(ctx context.Context) (string, error) { return p.redriveKeys(ctx, keys) })
	if ok {
		p.home(w, r, id)
	}
}

func (p *deadPage) redriveKeys(ctx context.Context, keys []counter.Key) (string, error) {
	done, err := p.operator.Redrive(ctx, keys)
	text := health.Number(int64(len(done.Keys))) + " redriven"
	if len(done.NotDead) > 0 {
		text += fmt.Sprintf(", %d not dead, so unchanged", len(done.NotDead))
	}
	if err != nil || len(done.Keys) == 0 {
		return text, err
	}
	if workers, err := p.operator.Workers(); err != nil || workers == 0 {
		return text + ": they wait, since no worker is running", err
	}
	outcome, err := p.operator.Await(ctx, done.Keys, redriveWait)
	if err != nil {
		return text, err
	}
	if n := len(outcome.Clean); n > 0 {
		text += fmt.Sprintf("; %d in Postgres now", n)
	}
	if n := len(outcome.Dead); n > 0 {
		text += fmt.Sprintf("; %d dead again", n)
	}
	if n := len(outcome.Waiting); n > 0 {
		text += fmt.Sprintf("; %d not flushed yet, or refused again and retried for some minutes", n)
	}
	return text, nil
}

// redriveEvery requires a confirmation: while the cause persists, it would try thousands of rows in vain.
func (p *deadPage) redriveEvery(w http.ResponseWriter, r *http.Request) {
	if r.PostForm.Get("confirm") != "yes" {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		total, err := p.operator.Count(ctx)
		if err != nil {
			p.log.Warn("the dead letters could not be counted", "error", err)
			p.pages.Reject(w, r, http.StatusServiceUnavailable, "Redis does not answer: nothing was changed.")
			return
		}
		p.redriveAll.render(w, r, http.StatusOK, total)
		return
	}
	id, ok := p.do(w, r, "redrive", "all dead letters", func(ctx context.Context) (string, error) {
		done, err := p.operator.RedriveAll(ctx)
		return health.Number(int64(len(done))) + " redriven", err
	})
	if ok {
		p.home(w, r, id)
	}
}

// home redirects to the page that the form was on.
func (p *deadPage) home(w http.ResponseWriter, r *http.Request, id int64) {
	if key := r.PostForm.Get("from"); key != "" {
		back(w, r, keyPath, url.Values{"key": {key}}, id)
		return
	}
	query := url.Values{}
	if search := r.PostForm.Get("q"); search != "" {
		query.Set("q", cut(search, maxSearch))
	}
	back(w, r, deadPath, query, id)
}
