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

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Counters carries out operations: a *writepath.Service.
type Counters interface {
	// Do carries out 1 to MaxOperations operations in order and returns a result for each. Every Err is a *counter.Error.
	Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result
}

// Options are what New can be told. The zero value works.
type Options struct {
	// Logger gets the errors that clients are not told about. Nil: none are logged.
	Logger *slog.Logger
	// Metrics gets the metrics of the api. Nil: a registry of its own.
	Metrics prometheus.Registerer
	// Health has the handlers of /healthz, /readyz and /metrics, by path. Nil: there are no such paths.
	Health map[string]http.Handler
	// Stopping reports that the process is about to stop, so that every answer closes its connection. Nil: never.
	Stopping func() bool
	// Flusher carries out POST /v1/flush. Nil: there is no such path.
	Flusher Flusher
	// Ending, if it is not nil, is done when the process is to end: who waits for a flush is answered then.
	Ending context.Context //nolint:containedctx // it is the process's, not a request's
	// Admin is what operators may do. The zero value: nothing.
	Admin Admin
	// Tracing makes a span of each request. Nil: none, and nothing of it runs.
	Tracing trace.TracerProvider
}

// Bounds on what a request may hold.
const (
	// MaxOperations in one batch: one call to Redis, some milliseconds there.
	MaxOperations = 10_000
	// MaxBodyBytes of a request on one counter, whose useful bodies are under 50 bytes.
	MaxBodyBytes = 1 << 20
	// MaxBatchBodyBytes is enough for MaxOperations of the longest keys.
	MaxBatchBodyBytes = 8 << 20
)

// server is what the handlers share.
type server struct {
	counters Counters
	log      *slog.Logger
	failures *failureLog
	metrics  *metrics
	health   map[string]http.Handler
	stopping func() bool
	batches  *admission
	admin    Admin
	flusher  Flusher
	flushes  chan struct{}   // one element for each that is waited for
	ending   context.Context //nolint:containedctx // it is the process's, not a request's

	tracing trace.TracerProvider

	adminTimeout time.Duration
}

//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the description of this API.
func openAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", openAPIDocument)
}

// New returns the handler of every route. It panics when the registry already holds metrics of the same names, so call
// it once for each registry.
func New(counters Counters, options Options) http.Handler {
	return newServer(counters, options).router()
}

func newServer(counters Counters, options Options) *server {
	s := &server{
		counters: counters,
		log:      options.Logger,
		health:   options.Health,
		stopping: options.Stopping,
		batches:  newAdmission(maxSmallBatches, maxLargeBatches, batchGrace),
		admin:    options.Admin,
		flusher:  options.Flusher,
		flushes:  make(chan struct{}, maxFlushes),
		ending:   options.Ending,
		tracing:  options.Tracing,

		adminTimeout: adminTimeout,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.stopping == nil {
		s.stopping = func() bool { return false }
	}
	if s.ending == nil {
		s.ending = context.Background()
	}
	s.failures = newFailureLog(s.log)
	if options.Metrics == nil {
		options.Metrics = prometheus.NewRegistry()
	}
	s.metrics = newMetrics(options.Metrics)
	return s
}

// router returns an Echo that knows every route. It has no middleware besides edge, unless requests are observed: Echo builds
// the chain anew for each request.
func (s *server) router() *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = s.fail
	e.Pre(s.edge)
	e.Use(s.observers()...)

	read := []string{http.MethodGet, http.MethodHead}
	e.Match(read, "/v1/counters/:key", s.get)
	e.PUT("/v1/counters/:key", s.set)
	e.DELETE("/v1/counters/:key", s.remove)
	e.POST("/v1/counters/:key/increment", s.increment)
	e.POST("/v1/batch", s.batch)
	if s.flusher != nil {
		e.POST("/v1/flush", s.flush)
	}
	e.Match(read, "/v1/openapi.yaml", openAPI)
	e.Match(read, "/problems/:code", explainProblem)
	for path, handler := range s.health {
		e.Match(read, path, echo.WrapHandler(handler))
	}
	s.adminRoutes(e)
	return e
}
