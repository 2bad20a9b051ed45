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
	// asynqPath is the root of Asynqmon's pages.
	asynqPath = "/asynq"

	// noSuchCall answers a change on a path that Asynqmon does not have. Asynqmon itself answers 200 with its page.
	noSuchCall = "Asynqmon has no such call: nothing was changed."

	// hiddenError replaces Asynqmon's errors, which contain Redis's address.
	hiddenError = "Redis does not answer, or refused: the log of the dashboard process has the reason"
)

var errNoScript = errors.New("its page has no script")

// thirdParty matches the links to fonts on other sites. They are removed, because browsers would report that the policy refuses them.
var thirdParty = regexp.MustCompile(`<link [^>]*href="https://[^>]*>`)

// barTemplate is the dashboard's navigation on Asynqmon's page.
var barTemplate = template.Must(template.New("bar").Parse(
	`<nav class="aw-bar" aria-label="Pages"><b>afterwrite</b>{{range .}}` +
		`<a href="{{.Path}}"{{if .Current}} aria-current="page"{{end}}>{{.Label}}</a>{{end}}</nav>`))

// routeQueues adds Asynqmon twice: for operators if Options.Write is set, and read-only for all others.
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

// monitor is Asynqmon with the dashboard's navigation, and without its error texts.
type monitor struct {
	asynqmon http.Handler
	page     []byte // its only page, which scripts fill
	log      *slog.Logger
}

// newMonitor returns Asynqmon with a Content-Security-Policy of its own.
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

// connection gives the dashboard's Redis client to Asynqmon, which would open two more and cannot parse Sentinel and Cluster addresses.
type connection struct{ client redis.UniversalClient }

// MakeRedisClient implements asynq.RedisConnOpt.
func (c connection) MakeRedisClient() any { return c.client }

// withNavigation adds the dashboard's navigation to Asynqmon's page.
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

// buffer holds an answer of Asynqmon until it is sent. The largest is a file of 3 MB; lists are bounded by maxListed.
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
	_, _ = w.Write(b.body.Bytes()) // fails only if the visitor has disconnected
}
