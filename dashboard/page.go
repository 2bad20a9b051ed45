package dashboard

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/access"
)

// pageFiles are the pages, each of which defines "content", and layout.html, which all of them stand in, with
// controls.html, which those with live updates show.
//
//go:embed pages
var pageFiles embed.FS

// staticFiles are what pages load: /static/style.css and so on. There is no build step.
//
//go:embed static
var staticFiles embed.FS

// link is an entry of the navigation.
type link struct {
	Path    string
	Label   string
	Current bool
}

// navigation is every page that can be reached from every other, in the order in which it is shown. To add a page: a file
// in pages/ that defines "content", a line here, and a route in New whose handler calls render.
var navigation = []link{
	{Path: "/", Label: "Overview"},
	{Path: "/shards", Label: "Shards"},
	{Path: deadPath, Label: "Dead letters"},
	{Path: keyPath, Label: "Counters"},
	{Path: actionsPath, Label: "Actions"},
	{Path: asynqPath, Label: "Queues"},
}

// page is one of our own pages.
type page struct {
	path     string // as in navigation
	title    string
	template *template.Template
	shared   *shared
}

// shared is what all pages have.
type shared struct {
	version string
	log     *slog.Logger
}

// view is what a template gets. A page's own data is in Data.
type view struct {
	Title      string
	Navigation []link
	Version    string
	Visitor    access.Identity // no role: nobody, who is shown no navigation
	Data       any
}

// newPage reads pages/<file>. It panics where the file is not a template: it is a part of the program.
func newPage(s *shared, path, title, file string) *page {
	t := template.New(file).Funcs(functions)
	return &page{
		path: path, title: title, shared: s,
		template: template.Must(t.ParseFS(pageFiles, "pages/layout.html", "pages/controls.html", "pages/partials.html", "pages/"+file)),
	}
}

// render answers with the page. What the template does not write as a whole is not written at all.
func (p *page) render(w http.ResponseWriter, r *http.Request, status int, data any) {
	v := view{Title: p.title, Version: p.shared.version, Visitor: access.Of(r), Data: data}
	if v.Visitor.Role != "" {
		v.Navigation = slices.Clone(navigation)
	}
	for i := range v.Navigation {
		v.Navigation[i].Current = v.Navigation[i].Path == p.path
	}
	var body bytes.Buffer
	if err := p.template.ExecuteTemplate(&body, "layout", v); err != nil {
		p.shared.log.Error("a page cannot be made", "page", p.path, "error", err)
		http.Error(w, "internal error: see the log of the dashboard process", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the visitor has gone
}

// part makes one of the page's templates, without the layout.
func (p *page) part(name string, data any) (string, error) {
	var text strings.Builder
	if err := p.template.ExecuteTemplate(&text, name, data); err != nil {
		return "", fmt.Errorf("make %s of page %s: %w", name, p.path, err)
	}
	return text.String(), nil
}
