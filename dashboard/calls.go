package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	urlpath "path"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/health"
)

const (
	// maxCall bounds the body of a call to Asynqmon, in bytes.
	maxCall = 1 << 20
	// maxAnswer bounds the answer to a call, in bytes. It repeats the task IDs of the call, with up to six bytes for each escaped one.
	maxAnswer = 6*maxCall + 1<<10
	// maxQuoted bounds the part of the answer that is recorded in the audit log, in bytes.
	maxQuoted = 1 << 10
	// maxListed bounds a page of tasks. Asynqmon accepts any size, and reads all tasks into memory.
	maxListed = 100
)

// calls serves Asynqmon: changing, which is nil if writing is disabled, to operators and readOnly to all others. Each change gets an
// audit log entry.
func (a *audit) calls(readOnly, changing http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		may := auth.Of(r).CanAct()
		switch {
		case reads(r.Method):
			boundSize(r.URL)
			if may && changing != nil {
				changing.ServeHTTP(w, r)
			} else {
				readOnly.ServeHTTP(w, r)
			}
		case !may:
			a.pages.Reject(w, r, http.StatusForbidden, "Only operators may do that, but you are a viewer. Nothing was changed.")
		case r.URL.RawQuery != "" || r.URL.ForceQuery: // no call has a query, but a task's ID may contain a ?
			a.pages.Reject(w, r, http.StatusBadRequest, "Asynqmon has no call with a query: nothing was changed.")
		case !strings.HasPrefix(r.URL.Path, asynqPath+"/api/"):
			a.pages.Reject(w, r, http.StatusNotFound, noSuchCall)
		case changing == nil:
			readOnly.ServeHTTP(w, r) // rejects it
		default:
			a.call(w, r, changing)
		}
	})
}

// plainPaths rejects changes on a path that is not clean, since a path with .. may lead to another call than it seems.
func (a *audit) plainPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r.Method) && urlpath.Clean(r.URL.Path) != r.URL.Path {
			a.pages.Reject(w, r, http.StatusBadRequest, "The path is not in its plain form: nothing was changed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// boundSize clamps the query's size to maxListed. If size is not a number, Asynqmon uses its default.
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

// call passes a change to Asynqmon, and records it with Asynqmon's answer.
func (a *audit) call(w http.ResponseWriter, r *http.Request, changing http.Handler) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		a.pages.Reject(w, r, http.StatusRequestEntityTooLarge, "The request is too large: nothing was changed.")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	what, target := "asynqmon "+r.Method, r.URL.Path
	if len(body) > 0 {
		target += " " + string(body)
	}
	id, err := a.begin(r, what, target)
	if err != nil {
		a.pages.Reject(w, r, http.StatusServiceUnavailable, auditFailure(err))
		return
	}
	answer, returned := newBuffer(), false
	defer func() { // runs after a panic too
		outcome, failed := answer.outcome(returned)
		a.end(r, id, what, target, outcome, failed)
	}()
	changing.ServeHTTP(answer, r)
	returned = true
	answer.send(w)
}

func reads(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// outcome describes Asynqmon's answer, and reports whether the call failed. Asynqmon answers 200 even if all tasks of a call failed.
func (b *buffer) outcome(returned bool) (text string, failed bool) {
	if b.status == 0 || !returned {
		return "Asynqmon sent no complete answer: the log of the dashboard process has the reason", true
	}
	text = "answered " + strconv.Itoa(b.status)
	failed = b.status >= http.StatusMultipleChoices
	if b.status == http.StatusOK {
		var left struct {
			Failed []string `json:"failed_ids"`
			Errors []string `json:"error_ids"`
		}
		err := json.Unmarshal(b.body.Bytes(), &left)
		n := len(left.Failed) + len(left.Errors)
		switch {
		case err != nil || b.body.Len() > maxAnswer:
			text, failed = text+", but the answer cannot be parsed", true
		case n > 0:
			text, failed = text+", but "+health.Count(int64(n), "task", "tasks")+" failed", true
		}
	}
	if quote := strings.TrimSpace(cut(b.body.String(), maxQuoted)); quote != "" {
		text += ": " + quote
	}
	return text, failed
}
