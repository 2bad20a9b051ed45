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
	Changed bool   // the values have changed since they were shown
	Search  string // search of the list that the visitor came from
	From    string // key of the counter's page that the visitor came from, or ""
}

// discardLetters shows the values that would be dropped, and drops them once the operator has confirmed exactly these values.
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

// beforeDiscard reads the current values from Redis and Postgres. It returns false if it has rejected the request.
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
			p.log.Warn("a dead letter could not be read", "key", key, "error", err)
			p.pages.Reject(w, r, http.StatusServiceUnavailable,
				"Redis or Postgres does not answer, so the values to drop are not known: nothing was changed.")
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

// Shown identifies the two states that the operator confirms.
func (l letterView) Shown() string { return l.Redis.String() + " | " + l.Postgres.String() }

// Now describes the counter after a discard.
func (l letterView) Now() string {
	if l.Postgres.State == operate.StateValue {
		return health.Number(l.Postgres.Value) + " again"
	}
	return "deleted: Postgres has no value"
}

// drop discards the dead letters one by one, and returns a summary. It skips those that were written meanwhile. If there are several, each
// gets its own audit log entry, which is the only record of the dropped values.
func (p *deadPage) drop(ctx context.Context, r *http.Request, data discardData) (outcome string, err error) {
	if len(data.Letters) == 1 {
		return p.dropOne(ctx, data.Letters[0])
	}
	discarded := 0
	for _, l := range data.Letters {
		if ctx.Err() != nil { // begin and end ignore ctx, so each further entry would delay the answer
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
			discarded++
		}
	}
	return fmt.Sprintf("discarded %d, kept %d", discarded, len(data.Letters)-discarded), err
}

func (p *deadPage) dropOne(ctx context.Context, l letterView) (outcome string, err error) {
	done, err := p.operator.Discard(ctx, l.DeadLetter)
	if err != nil {
		p.log.Warn("a dead letter was not discarded", "key", l.Key, "error", err)
		return "", err
	}
	p.log.Info("dead letter discarded", "key", l.Key, "dropped", l.Redis.String(), "now", done.Now.String())
	return "discarded " + storedText(l.Redis) + "; the counter is now " + storedText(done.Now), nil
}
