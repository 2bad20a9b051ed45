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

	"github.com/afterwrite/afterwrite/dashboard/auth"
)

const (
	// maxCall bounds the body of a call to Asynqmon, in bytes.
	maxCall = 1 << 20
	// maxAnswer bounds what is taken for an answer to a call, in bytes. It names the tasks of the call, in which a character takes at
	// most six bytes.
	maxAnswer = 6*maxCall + 1<<10
	// maxQuoted is how much of it goes into the audit log, in bytes.
	maxQuoted = 1 << 10
	// maxListed is the largest page of tasks. Asynqmon accepts any number, and reads them all into memory.
	maxListed = 100
)

// calls lets operators change things through Asynqmon, with an audit log entry for each call. changing is nil if nobody may.
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
			a.pages.Reject(w, r, http.StatusForbidden, "Only operators may do that, and you are a viewer: nothing was changed.")
		case r.URL.RawQuery != "" || r.URL.ForceQuery: // no call has one: this is a task's ID with a ? in it
			a.pages.Reject(w, r, http.StatusBadRequest, "Asynqmon has no such call with a query: nothing was changed.")
		case !strings.HasPrefix(r.URL.Path, asynqPath+"/api/"):
			a.pages.Reject(w, r, http.StatusNotFound, noSuchCall)
		case changing == nil:
			readOnly.ServeHTTP(w, r) // which rejects it
		default:
			a.call(w, r, changing)
		}
	})
}

// plainPaths rejects changes by a path that is not in its plain form: one with .. in it may mean something else than its author thinks.
func (a *audit) plainPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r.Method) && urlpath.Clean(r.URL.Path) != r.URL.Path {
			a.pages.Reject(w, r, http.StatusBadRequest, "The path is not in its plain form: nothing was changed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// boundSize clamps the query's size to maxListed. Asynqmon uses its default for what is not a number.
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

// call has Asynqmon change something, with an audit log entry that ends with its answer.
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
		a.pages.Reject(w, r, http.StatusServiceUnavailable, whyNotNoted(err))
		return
	}
	answer, returned := newBuffer(), false
	defer func() { // also when it panics
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

// outcome says what Asynqmon answered, and whether that is a failure. Asynqmon answers 200 even if it did nothing that it was asked
// for.
func (b *buffer) outcome(returned bool) (said string, failed bool) {
	if b.status == 0 || !returned {
		return "Asynqmon broke off: the log of the dashboard process has the reason", true
	}
	said = "answered " + strconv.Itoa(b.status)
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
			said, failed = said+", but nothing that can be read", true
		case n > 0:
			said, failed = said+fmt.Sprintf(", but not for %d", n), true
		}
	}
	if quote := strings.TrimSpace(cut(b.body.String(), maxQuoted)); quote != "" {
		said += ": " + quote
	}
	return said, failed
}
