package dashboard

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
)

// thirdParty finds the fonts that Asynqmon's page asks others for. The policy refuses them anyway; without them, nothing
// is refused, and nobody looks for the reason.
var thirdParty = regexp.MustCompile(`<link [^>]*href="https://[^>]*>`)

// barTemplate is the way back to our own pages, in Asynqmon's page.
var barTemplate = template.Must(template.New("bar").Parse(
	`<nav class="aw-bar" aria-label="Pages"><b>afterwrite</b>{{range .}}` +
		`<a href="{{.Path}}"{{if .Current}} aria-current="page"{{end}}>{{.Label}}</a>{{end}}</nav>`))

// noSuchCall is the answer to a change for which Asynqmon has its page only, with a 200.
const noSuchCall = "Asynqmon has no such call: nothing was changed."

// framed puts our navigation above Asynqmon's page. page is what monitor answers for each of its paths that is a page.
func framed(monitor http.Handler, page []byte) (http.Handler, error) {
	links := make([]link, len(navigation))
	for i, l := range navigation {
		l.Current = l.Path == asynqPath
		links[i] = l
	}
	var bar bytes.Buffer
	if err := barTemplate.Execute(&bar, links); err != nil {
		return nil, fmt.Errorf("make the bar: %w", err)
	}
	page = thirdParty.ReplaceAll(page, nil)
	page = bytes.Replace(page, []byte("</head>"), []byte(`<link rel="stylesheet" href="/static/asynq.css"></head>`), 1)
	page = bytes.Replace(page, []byte("<body>"), append([]byte("<body>"), bar.Bytes()...), 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		monitor.ServeHTTP(&framer{ResponseWriter: w, page: page, changes: !reads(r.Method)}, r)
	}), nil
}

// framer replaces an answer that is a page.
type framer struct {
	http.ResponseWriter

	page    []byte
	changes bool // it was to change something, which a page does not
	began   bool
	done    bool // what still comes belongs to the page that was replaced
}

// Write implements http.ResponseWriter.
func (f *framer) Write(body []byte) (int, error) {
	if !f.began {
		f.began = true
		f.done = bytes.HasPrefix(body, []byte("<!doctype html>"))
		switch {
		case f.done && f.changes:
			http.Error(f.ResponseWriter, noSuchCall, http.StatusNotFound)
		case f.done:
			if _, err := f.ResponseWriter.Write(f.page); err != nil {
				return 0, err
			}
		}
	}
	if f.done {
		return len(body), nil
	}
	return f.ResponseWriter.Write(body)
}
