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

	"github.com/afterwrite/afterwrite/dashboard/auth"
)

// pageFiles are the pages, each of which defines "content", and the shared templates.
//
//go:embed pages
var pageFiles embed.FS

// staticFiles are served under /static/. There is no build step.
//
//go:embed static
var staticFiles embed.FS

// link is an entry of the navigation.
type link struct {
	Path    string
	Label   string
	Current bool
}

// navigation lists the pages that every page links to, in order. To add a page, add a file in pages/ that defines "content", a line here,
// and a route in New whose handler calls render.
var navigation = []link{
	{Path: "/", Label: "Overview"},
	{Path: "/shards", Label: "Shards"},
	{Path: requestsPath, Label: "Requests"},
	{Path: deadPath, Label: "Dead letters"},
	{Path: keyPath, Label: "Counters"},
	{Path: mappingsPath, Label: "Mappings"},
	{Path: actionsPath, Label: "Actions"},
	{Path: asynqPath, Label: "Queues"},
}

// page is a page of the dashboard.
type page struct {
	path     string // path of its link in navigation
	title    string
	template *template.Template
	shared   *shared
}

// shared has the values that all pages need.
type shared struct {
	version string
	log     *slog.Logger
}

// view is the data of the layout. A page's own data is in Data.
type view struct {
	Title      string
	Navigation []link
	Version    string
	Visitor    auth.Identity // without a role, the page has no navigation
	Data       any
}

// newPage parses pages/<file>. It panics on an error, since the files are part of the program.
func newPage(s *shared, path, title, file string) *page {
	t := template.New(file).Funcs(functions)
	return &page{
		path: path, title: title, shared: s,
		template: template.Must(t.ParseFS(pageFiles, "pages/layout.html", "pages/controls.html", "pages/partials.html", "pages/"+file)),
	}
}

// render answers with the page, or with 500 if a template fails.
func (p *page) render(w http.ResponseWriter, r *http.Request, status int, data any) {
	v := view{Title: p.title, Version: p.shared.version, Visitor: auth.Of(r), Data: data}
	if v.Visitor.Role != "" {
		v.Navigation = slices.Clone(navigation)
	}
	for i := range v.Navigation {
		v.Navigation[i].Current = v.Navigation[i].Path == p.path
	}
	var body bytes.Buffer
	if err := p.template.ExecuteTemplate(&body, "layout", v); err != nil {
		p.shared.log.Error("a page could not be rendered", "page", p.path, "error", err)
		http.Error(w, "internal error: see the log of the dashboard process", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // fails only if the visitor has disconnected
}

// part renders one of the page's templates, without the layout.
func (p *page) part(name string, data any) (string, error) {
	var text strings.Builder
	if err := p.template.ExecuteTemplate(&text, name, data); err != nil {
		return "", fmt.Errorf("render %s of page %s: %w", name, p.path, err)
	}
	return text.String(), nil
}

// authPages are the pages for requests that are not admitted.
type authPages struct {
	signIn, reject *page
}

var _ auth.Pages = (*authPages)(nil)

func newAuthPages(s *shared) *authPages {
	return &authPages{
		signIn: newPage(s, auth.SignInPath, "Sign in", "signin.html"),
		reject: newPage(s, "", "Refused", "reject.html"),
	}
}

// signInData is what signin.html shows.
type signInData struct {
	Wrong, Next, Path string
}

// SignIn implements auth.Pages.
func (a *authPages) SignIn(w http.ResponseWriter, r *http.Request, status int, wrong, next string) {
	a.signIn.render(w, r, status, signInData{Wrong: wrong, Next: next, Path: auth.SignInPath})
}

// rejectData is what reject.html shows.
type rejectData struct {
	Title, Reason string
	SignIn        bool
}

// Reject implements auth.Pages.
func (a *authPages) Reject(w http.ResponseWriter, r *http.Request, status int, reason string) {
	a.reject.render(w, r, status, rejectData{Title: http.StatusText(status), Reason: reason, SignIn: status == http.StatusUnauthorized})
}
