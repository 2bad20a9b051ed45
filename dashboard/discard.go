package dashboard

import (
	"context"
	"fmt"
	"net/http"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// discardData is what discard.html shows.
type discardData struct {
	Letters []letterView
	NotDead []counter.Key
	Changed bool   // the values are not those that were shown before
	Search  string // of the list to go back to
	From    string
}

// discardLetters shows what would be dropped, and drops it once the operator has confirmed exactly that.
func (p *deadPage) discardLetters(w http.ResponseWriter, r *http.Request) {
	if !p.form(w, r) {
		return
	}
	keys, ok := p.named(w, r, chosen(r.PostForm))
	if !ok {
		return
	}
	data, ok := p.beforeDiscard(w, r, keys)
	if !ok {
		return
	}
	if r.PostForm.Get("confirm") != "yes" || data.Changed {
		p.discard.render(w, r, http.StatusOK, data)
		return
	}
	id, ok := p.do(w, r, "discard", listed(keys), func(ctx context.Context) (string, error) { return p.drop(ctx, r, data) })
	if ok {
		p.home(w, r, id)
	}
}

// beforeDiscard reads what Redis and Postgres have now. It returns false if it has rejected the request.
func (p *deadPage) beforeDiscard(w http.ResponseWriter, r *http.Request, keys []counter.Key) (discardData, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	data := discardData{Search: r.PostForm.Get("q"), From: r.PostForm.Get("from")}
	shown := r.PostForm["shown"]
	for i, key := range keys {
		dead, err := p.operator.Get(ctx, key)
		if operate.ReasonOf(err) == operate.NotDead {
			data.NotDead = append(data.NotDead, key)
			data.Changed = true
			continue
		}
		if err == nil {
			err = dead.Discardable()
		}
		if err != nil {
			p.log.Warn("a dead letter cannot be read", "key", key, "error", err)
			p.pages.Reject(w, r, http.StatusServiceUnavailable,
				"Redis or Postgres does not answer, so it is not known what would be dropped: nothing was changed.")
			return data, false
		}
		view := newLetterView(dead)
		if i >= len(shown) || shown[i] != view.Shown() {
			data.Changed = true
		}
		data.Letters = append(data.Letters, view)
	}
	if r.PostForm.Get("confirm") != "yes" {
		data.Changed = false
	}
	return data, true
}

// Shown identifies what a confirmation is for: exactly these two states.
func (l letterView) Shown() string { return l.Redis.String() + " | " + l.Postgres.String() }

// Now is what the counter becomes after a discard.
func (l letterView) Now() string {
	if l.Postgres.State == operate.StateValue {
		return health.Number(l.Postgres.Value) + " again"
	}
	return "deleted: Postgres has no value of it"
}

// drop discards one dead letter after the other, and says what it dropped. It skips those that were written meanwhile. If there are
// several, each gets its own audit log entry: what was dropped is recorded nowhere else.
func (p *deadPage) drop(ctx context.Context, r *http.Request, data discardData) (said string, err error) {
	if len(data.Letters) == 1 {
		return p.dropOne(ctx, data.Letters[0])
	}
	dropped := 0
	for _, l := range data.Letters {
		if ctx.Err() != nil { // each further entry would take its time as well
			err = ctx.Err()
			break
		}
		id, failed := p.begin(r, "discard", string(l.Key))
		if failed == nil {
			var outcome string
			if outcome, failed = p.dropOne(ctx, l); failed != nil {
				outcome = operate.Explain(failed).Detail
			}
			p.end(r, id, "discard", string(l.Key), outcome, failed != nil)
		}
		if failed != nil {
			err = failed
		} else {
			dropped++
		}
	}
	return fmt.Sprintf("dropped %d, left %d", dropped, len(data.Letters)-dropped), err
}

func (p *deadPage) dropOne(ctx context.Context, l letterView) (said string, err error) {
	done, err := p.operator.Discard(ctx, l.DeadLetter)
	if err != nil {
		p.log.Warn("a dead letter was not discarded", "key", l.Key, "error", err)
		return "", err
	}
	p.log.Info("dead letter discarded", "key", l.Key, "dropped", l.Redis.String(), "now", done.Now.String())
	return "dropped " + storedText(l.Redis) + "; it is " + storedText(done.Now), nil
}
