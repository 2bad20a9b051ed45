package dashboard

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxForm bounds the body of a form: 500 of the longest keys, percent-encoded, and their values.
	maxForm = 1 << 20
	// maxNamed bounds the counters of one form.
	maxNamed = 500
)

// form parses a form. It returns false if it has rejected the request.
func (a *audit) form(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		a.pages.Reject(w, r, http.StatusBadRequest, "That is not one of this dashboard's forms: nothing was changed.")
		return false
	}
	return true
}

// named parses the keys of a form. It returns false if it has rejected the request.
func (a *audit) named(w http.ResponseWriter, r *http.Request, texts []string) ([]counter.Key, bool) {
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
			why = "One of the keys is not valid: nothing was changed."
			break
		}
		keys = append(keys, key)
	}
	if why != "" {
		a.pages.Reject(w, r, http.StatusBadRequest, why)
		return nil, false
	}
	return keys, true
}

// chosen returns the key whose button was pressed, or else the ticked keys.
func chosen(form url.Values) []string {
	if only := form.Get("only"); only != "" {
		return []string{only}
	}
	return form["key"]
}

// listed joins keys for the audit log, which truncates long texts.
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

// cut returns the first n bytes of a text, without an incomplete character.
func cut(text string, n int) string {
	if len(text) > n {
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "")
}
