package dashboard

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
)

const (
	// asynqPath is where Asynqmon is.
	asynqPath = "/asynq"

	// noSuchCall answers a request that would change something, but that Asynqmon only knows as a page, and answers with 200.
	noSuchCall = "Asynqmon has no such call: nothing was changed."

	// hiddenError is what visitors get instead of an error of Asynqmon, which holds Redis's address.
	hiddenError = "Redis does not answer, or refused: the log of the dashboard process has the reason"
)

var errNoScript = errors.New("there is no script in its page")

// thirdParty finds the fonts that Asynqmon's page loads from other sites. The policy refuses them anyway; without the links, browsers
// report no refusal.
var thirdParty = regexp.MustCompile(`<link [^>]*href="https://[^>]*>`)

// barTemplate is our navigation in Asynqmon's page.
var barTemplate = template.Must(template.New("bar").Parse(
	`<nav class="aw-bar" aria-label="Pages"><b>afterwrite</b>{{range .}}` +
		`<a href="{{.Path}}"{{if .Current}} aria-current="page"{{end}}>{{.Label}}</a>{{end}}</nav>`))

// routeQueues adds Asynqmon twice: for operators, if they may write, and read-only for everybody else.
func routeQueues(mux *http.ServeMux, options Options, a *audit) error {
	readOnly, err := newMonitor(options, true)
	if err != nil {
		return err
	}
	var changing http.Handler
	if options.Write {
		if changing, err = newMonitor(options, false); err != nil {
			return err
		}
	}
	queues := a.calls(readOnly, changing)
	mux.Handle(asynqPath, queues)
	mux.Handle(asynqPath+"/", queues)
	return nil
}

// monitor is Asynqmon with our navigation, and without its errors.
type monitor struct {
	asynqmon http.Handler
	page     []byte // the one page that it has, which its scripts fill
	log      *slog.Logger
}

// newMonitor returns Asynqmon under a policy of its own.
func newMonitor(options Options, readOnly bool) (http.Handler, error) {
	m := &monitor{
		asynqmon: asynqmon.New(asynqmon.Options{RootPath: asynqPath, RedisConnOpt: connection{options.Redis}, ReadOnly: readOnly}),
		log:      options.Logger,
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, asynqPath, nil)
	if err != nil {
		return nil, err
	}
	answer := newBuffer()
	m.asynqmon.ServeHTTP(answer, request)
	policy, err := monitorPolicy(answer.body.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read the page of Asynqmon: %w", err)
	}
	m.page, err = withNavigation(answer.body.Bytes())
	return withPolicy(policy, m), err
}

// connection gives our own client to Asynqmon. It would otherwise open two more, and does not understand our addresses of Sentinel
// and Cluster.
type connection struct{ client redis.UniversalClient }

// MakeRedisClient implements asynq.RedisConnOpt.
func (c connection) MakeRedisClient() any { return c.client }

// withNavigation adds our navigation to Asynqmon's page.
func withNavigation(page []byte) ([]byte, error) {
	links := slices.Clone(navigation)
	for i := range links {
		links[i].Current = links[i].Path == asynqPath
	}
	var bar bytes.Buffer
	if err := barTemplate.Execute(&bar, links); err != nil {
		return nil, fmt.Errorf("render the navigation: %w", err)
	}
	page = thirdParty.ReplaceAll(page, nil)
	page = bytes.Replace(page, []byte("</head>"), []byte(`<link rel="stylesheet" href="/static/asynq.css"></head>`), 1)
	return bytes.Replace(page, []byte("<body>"), append([]byte("<body>"), bar.Bytes()...), 1), nil
}

// ServeHTTP implements http.Handler.
func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := newBuffer()
	m.asynqmon.ServeHTTP(answer, r)
	switch isPage := bytes.HasPrefix(answer.body.Bytes(), []byte("<!doctype html>")); {
	case answer.status >= http.StatusInternalServerError:
		m.log.Warn("asynqmon failed", "path", r.URL.Path, "error", answer.body.String())
		answer.replace([]byte(hiddenError))
	case isPage && !reads(r.Method):
		http.Error(w, noSuchCall, http.StatusNotFound)
		return
	case isPage:
		answer.replace(m.page)
	}
	answer.send(w)
}

// buffer keeps an answer until it is sent. Asynqmon's are small enough: its largest file has 3 MB, and lists are bounded.
type buffer struct {
	header http.Header
	status int // 0: none yet
	body   bytes.Buffer
}

func newBuffer() *buffer { return &buffer{header: make(http.Header)} }

func (b *buffer) Header() http.Header { return b.header }

func (b *buffer) WriteHeader(status int) { b.status = cmp.Or(b.status, status) }

func (b *buffer) Write(body []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	return b.body.Write(body)
}

func (b *buffer) replace(body []byte) {
	b.header.Del("Content-Length")
	b.body.Reset()
	b.body.Write(body)
}

func (b *buffer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), b.header)
	w.WriteHeader(cmp.Or(b.status, http.StatusOK))
	_, _ = w.Write(b.body.Bytes()) // an error means that the visitor has gone
}
