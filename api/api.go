// Package api serves counters over HTTP. It decodes requests into counter operations, passes them to a Counters, and encodes the
// results as JSON. It holds no counters of its own. Only this package uses Echo's types.
//
//	handler := api.New(service, api.Options{Logger: log, Metrics: registry, Health: health.Handlers()})
//
// # The path of a request
//
// Each step is a file of this package:
//
//   - edge: assigns the request ID, recovers panics, decodes the key in the path exactly once and checks it.
//   - access: has the table of routes with the scope of each. Checks API keys, which package auth holds, and their rates.
//   - observe: writes the log and the spans, if they are enabled.
//   - prefer: reads the Prefer header, which says how long and for what the client waits.
//   - admission: bounds the large bodies that are being received.
//   - body, coding, decode: check media type and size, decompress, then read strict JSON as tokens.
//   - counters, batch, read: pass the operations to Counters, which is package writepath.
//   - stream, intake: the same for a body of any length, group by group, while it arrives.
//   - history: says where writes come from, and reads the history of a counter.
//   - list: pass lists to a Lister, which is package catalog.
//   - flush, admin, dead: pass the requests of operators to package operate.
//   - encode: appends the answer to a pooled buffer.
//   - problem: turns every error into a problem document. One table maps codes to statuses.
//
// Errors are values of counter.Error. Detail is for the client; Err is only logged.
//
// openapi.yaml describes the API. It is embedded and served at /v1/openapi.yaml. The tests fail for a route, a status or a
// field that the document does not have.
package api

import (
	"context"
	_ "embed"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Counters carries out operations. *writepath.Service implements it.
type Counters interface {
	// Do carries out 1 to MaxOperations operations in order and returns a result for each. Every Err is a *counter.Error.
	Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result
}

// Options are optional: the zero value works.
type Options struct {
	// Logger gets the log: failures, panics, what operators change and, at debug level, every request. Nil: no log.
	Logger *slog.Logger
	// Metrics gets the metrics of the api. Nil: a new registry, which nothing reads.
	Metrics prometheus.Registerer
	// Health has the handlers of /healthz, /readyz and /metrics, by path. Nil: these paths answer 404.
	Health map[string]http.Handler
	// Stopping reports whether the process is about to stop. Once it does, every answer closes its connection. Nil: never.
	Stopping func() bool
	// Flusher carries out POST /v1/flush. Nil: the path answers 404.
	Flusher Flusher
	// Lister lists counters for GET /v1/counters and /v1/top. Nil: these paths answer 404.
	Lister Lister
	// Historian reads histories for GET /v1/counters/{key}/history. Nil: this path answers 404, and no counter has a history.
	Historian Historian
	// Shutdown is canceled when the process is told to stop. Clients that wait for a flush are then answered. Nil: never.
	Shutdown context.Context //nolint:containedctx // it is the process's, not a request's
	// Keys are the API keys. Nil: everybody may read and write, without a limit, and the paths for operators answer 404.
	Keys *auth.Keyring
	// Operator carries out the requests under /v1/admin. Nil: these paths answer 404.
	Operator *operate.Service
	// CORSOrigins are the origins whose pages may use the API in a browser, or "*". None: no answer has CORS headers.
	CORSOrigins []string
	// Tracing makes a span of each request. Nil: no spans, at no cost.
	Tracing trace.TracerProvider
}

// Bounds of a request.
const (
	// MaxOperations is the limit for one batch. A batch is one call to Redis and keeps it busy for some milliseconds.
	MaxOperations = 10_000
	// MaxBodyBytes limits the body of a request on one counter, and of a redrive.
	MaxBodyBytes = 1 << 20
	// MaxBatchBodyBytes is the limit for the body of a batch, a read or a flush. It is enough for MaxOperations with the longest
	// keys.
	MaxBatchBodyBytes = 8 << 20
)

// server holds what the handlers share.
type server struct {
	Options

	counters     Counters
	recording    bool // some counters have a history
	failures     *failureLog
	metrics      *metrics
	admission    *admission
	flushes      chan struct{} // one element for each flush in progress
	streams      chan struct{} // one element for each open stream
	streamLimits streamLimits
	adminTimeout time.Duration
}

//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the description of this API.
func openAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", openAPIDocument)
}

// New returns the handler of every route. It panics if the registry already holds metrics of the same names, so call it
// only once with the same registry.
func New(counters Counters, options Options) http.Handler {
	return newServer(counters, options).router()
}

func newServer(counters Counters, options Options) *server {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = prometheus.NewRegistry()
	}
	if options.Stopping == nil {
		options.Stopping = func() bool { return false }
	}
	if options.Shutdown == nil {
		options.Shutdown = context.Background()
	}
	if options.Keys == nil {
		options.Keys = auth.Open()
	}
	options.Metrics.MustRegister(options.Keys)
	return &server{
		Options:      options,
		counters:     counters,
		recording:    options.Historian != nil && options.Historian.Recording(),
		failures:     newFailureLog(options.Logger),
		metrics:      newMetrics(options.Metrics),
		admission:    newAdmission(maxSmallBodies, maxLargeBodies, bodyGrace),
		flushes:      make(chan struct{}, maxFlushes),
		streams:      make(chan struct{}, maxStreams),
		streamLimits: defaultStreamLimits(),
		adminTimeout: adminTimeout,
	}
}

// router returns an Echo with every route. edge is its only middleware unless requests are logged or traced, or pages of other
// origins are permitted: Echo builds the middleware chain for every request.
func (s *server) router() *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = s.fail
	e.Pre(s.edge)
	e.Use(s.observers()...)
	if len(s.CORSOrigins) > 0 {
		e.Use(cors(s.CORSOrigins))
	}

	for _, r := range s.routes() {
		methods := []string{r.method}
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		e.Match(methods, r.path, s.guard(r))
	}
	return e
}
