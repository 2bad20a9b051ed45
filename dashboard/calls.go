package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	urlpath "path"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/access"
)

const (
	// maxCall bounds the body of a call to Asynqmon.
	maxCall = 1 << 20
	// maxHeard is how much of Asynqmon's answer to a change is kept until it has been judged. It names the tasks of the call, whose
	// characters take six bytes each at most.
	maxHeard = 6*maxCall + 1<<10
	// maxQuoted is how much of it is noted.
	maxQuoted = 1 << 10
	// maxListed is the most tasks that Asynqmon may list at once: it takes any number, and reads them all into memory.
	maxListed = 100
)

// calls lets operators change things through Asynqmon, and notes each call. Where nobody may, changing is nil.
func (g *register) calls(readOnly, changing http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		may := access.Of(r).May()
		switch {
		case reads(r.Method):
			boundSize(r.URL)
			if may && changing != nil {
				changing.ServeHTTP(w, r)
			} else {
				readOnly.ServeHTTP(w, r)
			}
		case !may:
			g.answers.Refuse(w, r, http.StatusForbidden, "That takes an operator, and you are a viewer: nothing was changed.")
		case r.URL.RawQuery != "" || r.URL.ForceQuery: // none of its calls has one: this is a task's ID, cut in two
			g.answers.Refuse(w, r, http.StatusBadRequest, "Asynqmon has no such call, with a query: nothing was changed.")
		case !strings.HasPrefix(r.URL.Path, asynqPath+"/api/"):
			g.answers.Refuse(w, r, http.StatusNotFound, noSuchCall)
		case changing == nil:
			readOnly.ServeHTTP(w, r) // which refuses
		default:
			g.call(w, r, changing)
		}
	})
}

// straight refuses to change anything by a path that is not in its plain form: with .. in it, it may mean another thing than
// whoever wrote it thinks.
func (g *register) straight(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r.Method) && urlpath.Clean(r.URL.Path) != r.URL.Path {
			g.answers.Refuse(w, r, http.StatusBadRequest, "The path is not in its plain form: nothing was changed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// boundSize clamps the query's size to maxListed. What is not a number Asynqmon takes for its default.
func boundSize(u *url.URL) {
	query := u.Query()
	sizes, ok := query["size"]
	if !ok {
		return
	}
	size, err := strconv.Atoi(sizes[0])
	if errors.Is(err, strconv.ErrRange) || err == nil && (size < 1 || size > maxListed) {
		query.Set("size", strconv.Itoa(maxListed))
		u.RawQuery = query.Encode()
	}
}

// call has Asynqmon change something, and notes what it answered.
func (g *register) call(w http.ResponseWriter, r *http.Request, changing http.Handler) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		g.answers.Refuse(w, r, http.StatusRequestEntityTooLarge, "The request is too large: nothing was changed.")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	what, target := "asynqmon "+r.Method, r.URL.Path
	if len(body) > 0 {
		target += " " + string(body)
	}
	id, err := g.begin(r, what, target)
	if err != nil {
		g.answers.Refuse(w, r, http.StatusServiceUnavailable, whyNotNoted(err))
		return
	}
	heard := &hearer{ResponseWriter: w}
	defer func() { // also when it panics
		outcome, failed := heard.outcome()
		g.end(r, id, what, target, outcome, failed)
	}()
	changing.ServeHTTP(heard, r)
	heard.returned = true
}

func reads(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// hearer keeps an answer of Asynqmon's, to judge it by.
type hearer struct {
	http.ResponseWriter

	status   int // 0: none yet
	body     bytes.Buffer
	returned bool // whoever answers has come to its end
}

// WriteHeader implements http.ResponseWriter.
func (h *hearer) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
	h.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter. It never fails: what was done does not depend on who still listens.
func (h *hearer) Write(body []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	h.body.Write(body[:min(len(body), maxHeard-h.body.Len())])
	_, _ = h.ResponseWriter.Write(body) // the visitor has gone
	return len(body), nil
}

// outcome says what was answered, and whether that is a failure: Asynqmon answers 200 as well where it did nothing of what it was
// asked for.
func (h *hearer) outcome() (said string, failed bool) {
	if h.status == 0 || !h.returned {
		return "Asynqmon broke off: the log of the dashboard process has the reason", true
	}
	said = "answered " + strconv.Itoa(h.status)
	failed = h.status >= http.StatusMultipleChoices
	if h.status == http.StatusOK {
		var left struct {
			Failed []string `json:"failed_ids"`
			Errors []string `json:"error_ids"`
		}
		err := json.Unmarshal(h.body.Bytes(), &left)
		n := len(left.Failed) + len(left.Errors)
		switch {
		case err != nil:
			said, failed = said+", but nothing that can be read", true
		case n > 0:
			said, failed = said+fmt.Sprintf(", but not for %d", n), true
		}
	}
	if quote := strings.TrimSpace(cut(h.body.String(), maxQuoted)); quote != "" {
		said += ": " + quote
	}
	return said, failed
}
