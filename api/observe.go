package api

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// observers returns the access log if the level is debug, and spans if there is a Tracing. Without both there is no middleware,
// because Echo builds the chain anew for each request.
func (s *server) observers() []echo.MiddlewareFunc {
	var chain []echo.MiddlewareFunc
	if s.Logger.Enabled(s.Ending, slog.LevelDebug) {
		chain = append(chain, s.accessLog)
	}
	if s.Tracing != nil {
		chain = append(chain, otelecho.Middleware("afterwrite-api",
			otelecho.WithTracerProvider(s.Tracing), otelecho.WithPropagators(propagation.TraceContext{}), otelecho.WithSkipper(unobserved)),
			nameSpan)
	}
	if len(chain) > 0 {
		chain = slices.Insert(chain, 0, answerErrors)
	}
	return chain
}

// unobserved skips the requests that machines send every few seconds.
func unobserved(c echo.Context) bool {
	switch c.Path() {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return false
}

const (
	// idAttribute is the name that OpenTelemetry's semantic conventions give to the header with the request ID. The answer has it
	// even if the client sent none, or one that was replaced.
	idAttribute = "http.response.header.x-request-id"

	// spanKey stores the span of a request for log lines after its end.
	spanKey = "afterwrite-span"
)

// nameSpan writes the request ID to the span, and stores the span for logContext.
func nameSpan(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		span := trace.SpanFromContext(c.Request().Context())
		if at := span.SpanContext(); at.IsValid() {
			c.Set(spanKey, at)
		}
		if span.IsRecording() {
			span.SetAttributes(attribute.StringSlice(idAttribute, []string{answerID(c)}))
		}
		return next(c)
	}
}

// logContext returns a context for a line about the request, with its trace even after its span has ended.
func logContext(c echo.Context) context.Context {
	ctx := c.Request().Context()
	if at, traced := c.Get(spanKey).(trace.SpanContext); traced {
		ctx = trace.ContextWithSpanContext(ctx, at)
	}
	return ctx
}

// answerErrors drops an error that has been answered: otelecho passes it on, and it would be counted twice.
func answerErrors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := next(c); err != nil && !c.Response().Committed {
			return err
		}
		return nil
	}
}

// accessLog writes a line for each request, after errors were answered.
func (s *server) accessLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		if err := next(c); err != nil && !c.Response().Committed {
			c.Error(err)
		}
		r := c.Request()
		s.Logger.LogAttrs(logContext(c), slog.LevelDebug, "request",
			slog.String("request_id", answerID(c)), slog.String("method", method(r)), slog.String("route", c.Path()),
			slog.Int("status", c.Response().Status), slog.Duration("duration", time.Since(began)))
		return nil
	}
}

// maxMethodBytes bounds what is logged of an invented method.
const maxMethodBytes = 16

func method(r *http.Request) string { return r.Method[:min(len(r.Method), maxMethodBytes)] }

// Bounds on the log of failures. While Redis is away every request fails for the same reason: some lines are as useful as 50,000 a
// second, which would fill a disk. Errors of code internal are bugs, and are not limited.
const (
	failuresPerSecond = 10
	failuresBurst     = 100
)

// failureLog logs what counter.Error keeps from clients, once for each request, and bounded.
type failureLog struct {
	logger *slog.Logger
	limit  *rate.Limiter
	unsaid atomic.Int64 // failures that were not logged since the last line
}

func newFailureLog(logger *slog.Logger) *failureLog {
	return &failureLog{logger: logger, limit: rate.NewLimiter(failuresPerSecond, failuresBurst)}
}

// log logs e unless it is a refusal such as backpressure, which has no Err and is a metric, or the client has hung up.
// operations is how many had this outcome.
func (l *failureLog) log(c echo.Context, e *counter.Error, operations int) {
	internal := e.Code == counter.CodeInternal
	switch {
	case problems[e.Code].status < http.StatusInternalServerError, e.Err == nil:
		return
	case internal:
		l.line(c, slog.LevelError, e, operations)
	case c.Request().Context().Err() != nil:
		return
	case l.limit.Allow():
		l.line(c, slog.LevelWarn, e, operations)
	default:
		l.unsaid.Add(1)
	}
}

func (l *failureLog) line(c echo.Context, level slog.Level, e *counter.Error, operations int) {
	l.logger.Log(logContext(c), level, "request failed",
		"request_id", answerID(c), "method", c.Request().Method, "route", c.Path(),
		"code", string(e.Code), "operations", operations, "error", e.Err, "unsaid", l.unsaid.Swap(0))
}
