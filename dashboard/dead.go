package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	deadPath = "/dead"

	// deadPageSize is how many dead letters a page has.
	deadPageSize = 50
	// pageTimeout bounds the reads for a page.
	pageTimeout = 5 * time.Second
	// maxSearch bounds what is searched for, bytes.
	maxSearch = counter.MaxKeyBytes
	// landing is how long a redrive is waited for, to say what became of it.
	landing = 3 * time.Second
)

// deadPage is /dead, and what its forms ask for.
type deadPage struct {
	*page
	*register

	redriveAll, discard *page
	operator            *operate.Service
}

func newDeadPage(s *shared, g *register, operator *operate.Service) *deadPage {
	return &deadPage{
		page: newPage(s, deadPath, "Dead letters", "dead.html"), register: g, operator: operator,
		redriveAll: newPage(s, deadPath, "Redrive all dead letters", "redrive.html"),
		discard:    newPage(s, deadPath, "Discard dead letters", "discard.html"),
	}
}

// deadData is what dead.html shows.
type deadData struct {
	Letters  []letterView
	Total    int64
	Search   string
	More     string // where the next page begins; "" at the end
	First    bool   // of the pages
	Workers  int
	Unread   bool // Postgres does not answer
	NoRedis  bool
	May      bool
	Did      *store.Action
	Explains bool // there is nothing, and nothing is searched for
}

// letterView is a dead letter as it is shown.
type letterView struct {
	operate.DeadLetter

	Age     time.Duration
	Pending string // what Redis has more than Postgres: +3; "" where that is no number
}

func newLetterView(d operate.DeadLetter) letterView {
	v := letterView{DeadLetter: d, Age: time.Since(d.Since)}
	switch {
	case d.Redis.State == operate.StateUnknownBase:
		v.Pending = signed(d.Redis.Value)
	case d.Redis.State == operate.StateValue && d.Postgres.State != operate.StateUnknown:
		pending := d.Redis.Value - d.Postgres.Value
		if (pending > 0) == (d.Redis.Value > d.Postgres.Value) { // else it does not fit
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
	data := deadData{Search: cut(query.Get("q"), maxSearch), May: access.Of(r).May(), First: query.Get("after") == ""}
	after, _ := operate.ParseCursor(query.Get("after")) // anything else is the beginning
	dead, next, err := p.operator.List(ctx, data.Search, after, deadPageSize)
	if err == nil {
		data.Total, err = p.operator.Count(ctx)
	}
	if err == nil {
		data.Workers, err = p.operator.Workers()
	}
	data.Unread = len(dead) > 0 && dead[0].PostgresErr != nil
	if !data.Unread {
		data.Did = p.did(r) // not earlier: while Postgres hangs it takes all of the time there is
	}
	if err != nil {
		p.log.Warn("the dead letters cannot be read", "error", err)
		data.NoRedis = true
		p.render(w, r, http.StatusServiceUnavailable, data)
		return
	}
	if data.Unread {
		p.log.Warn("postgres did not answer, so what it has is shown as unknown", "error", dead[0].PostgresErr)
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

// redrive makes dead letters due again: those that are ticked, the one whose button it was, or after a question, all.
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
	said := number(int64(len(done.Keys))) + " due again"
	if len(done.NotDead) > 0 {
		said += fmt.Sprintf(", %d not dead, so left alone", len(done.NotDead))
	}
	if err != nil || len(done.Keys) == 0 {
		return said, err
	}
	if workers, err := p.operator.Workers(); err != nil || workers == 0 {
		return said + ": they wait, since no worker is running", err
	}
	outcome, err := p.operator.Await(ctx, done.Keys, landing)
	if err != nil {
		return said, err
	}
	if n := len(outcome.Clean); n > 0 {
		said += fmt.Sprintf("; %d in Postgres now", n)
	}
	if n := len(outcome.Dead); n > 0 {
		said += fmt.Sprintf("; %d dead again", n)
	}
	if n := len(outcome.Waiting); n > 0 {
		said += fmt.Sprintf("; %d still on the way, or refused once more and tried again for some minutes", n)
	}
	return said, nil
}

// redriveEvery asks first: after a cause that was not mended, thousands of rows would be tried for nothing.
func (p *deadPage) redriveEvery(w http.ResponseWriter, r *http.Request) {
	if r.PostForm.Get("confirm") != "yes" {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		total, err := p.operator.Count(ctx)
		if err != nil {
			p.log.Warn("the dead letters cannot be counted", "error", err)
			p.answers.Refuse(w, r, http.StatusServiceUnavailable, "Redis does not answer: nothing was changed.")
			return
		}
		p.redriveAll.render(w, r, http.StatusOK, total)
		return
	}
	id, ok := p.do(w, r, "redrive", "all dead letters", func(ctx context.Context) (string, error) {
		done, err := p.operator.RedriveAll(ctx)
		return number(int64(len(done))) + " due again", err
	})
	if ok {
		p.home(w, r, id)
	}
}

// home goes back to where the form was.
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

// chosen is the key whose own button was pressed, or those that are ticked.
func chosen(form url.Values) []string {
	if only := form.Get("only"); only != "" {
		return []string{only}
	}
	return form["key"]
}

// listed names keys for the log of actions, which cuts long texts.
func listed(keys []counter.Key) string {
	var b strings.Builder
	if len(keys) > 1 {
		b.WriteString(strconv.Itoa(len(keys)) + ": ")
	}
	for i, key := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(key))
	}
	return b.String()
}

// cut is the first n bytes of a text, without the rest of a character.
func cut(text string, n int) string {
	if len(text) > n {
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "")
}
