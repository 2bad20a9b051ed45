// Package api serves counters over HTTP. It decodes requests into counter operations, passes them to a Counters, and encodes the
// results as JSON. It holds no counters of its own, and Echo's types stay in here.
//
//	handler := api.New(service, api.Options{Logger: log, Metrics: registry, Health: health.Handlers()})
//
// # The way of a request
//
//   - edge: assigns the request ID, recovers panics, decodes the key in the path exactly once and checks it.
//   - admission: bounds the batches that are being received.
//   - body, decode: media type, size, then strict JSON, read as tokens.
//   - counters, batch: pass the operations to Counters, which in the program is package writepath. prefer: what the client
//     waits for.
//   - flush, admin, dead: what operators do (package operate); admin needs a token.
//   - encode: the answer, appended to a pooled buffer. problem: every error, by one table from code to status.
//
// Errors are values of counter.Error. Detail is for the client; Err is only logged.
//
// openapi.yaml describes the API. It is embedded, served at /v1/openapi.yaml, and tested against this package: a route, a
// status or a field that the document does not have fails the tests.
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

// Options are optional: the zero value works.
type Options struct {
	// Logger gets the errors that clients are not told. Nil: none are logged.
	Logger *slog.Logger
	// Metrics gets the metrics of the api. Nil: a registry of its own.
	Metrics prometheus.Registerer
	// Health has the handlers of /healthz, /readyz and /metrics, by path. Nil: there are no such paths.
	Health map[string]http.Handler
	// Stopping reports that the process is about to stop, so that every answer closes its connection. Nil: never.
	Stopping func() bool
	// Flusher carries out POST /v1/flush. Nil: there is no such path.
	Flusher Flusher
	// Ending is done when the process is told to stop: clients that wait for a flush are answered then. Nil: never.
	Ending context.Context //nolint:containedctx // it is the process's, not a request's
	// Admin configures the paths for operators. The zero value: there are none.
	Admin Admin
	// Tracing makes a span of each request. Nil: no spans, at no cost.
	Tracing trace.TracerProvider
}

// Bounds of a request.
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
	Options

	counters     Counters
	failures     *failureLog
	metrics      *metrics
	batches      *admission
	flushes      chan struct{} // one element for each in progress
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
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = prometheus.NewRegistry()
	}
	if options.Stopping == nil {
		options.Stopping = func() bool { return false }
	}
	if options.Ending == nil {
		options.Ending = context.Background()
	}
	return &server{
		Options:      options,
		counters:     counters,
		failures:     newFailureLog(options.Logger),
		metrics:      newMetrics(options.Metrics),
		batches:      newAdmission(maxSmallBatches, maxLargeBatches, batchGrace),
		flushes:      make(chan struct{}, maxFlushes),
		adminTimeout: adminTimeout,
	}
}

// router returns an Echo with every route. It has no middleware but edge unless requests are observed, because Echo builds the
// chain anew for each request.
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
	if s.Flusher != nil {
		e.POST("/v1/flush", s.flush)
	}
	e.Match(read, "/v1/openapi.yaml", openAPI)
	e.Match(read, "/problems/:code", explainProblem)
	for path, handler := range s.Health {
		e.Match(read, path, echo.WrapHandler(handler))
	}
	s.adminRoutes(e)
	return e
}
