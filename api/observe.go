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

// observers returns the middleware for the access log, if the log level is debug, and for spans, if Tracing is set. With
// neither, it returns none, because Echo builds the middleware chain for every request.
func (s *server) observers() []echo.MiddlewareFunc {
	var chain []echo.MiddlewareFunc
	if s.Logger.Enabled(s.Shutdown, slog.LevelDebug) {
		chain = append(chain, s.accessLog)
	}
	if s.Tracing != nil {
		chain = append(chain, otelecho.Middleware("afterwrite-api",
			otelecho.WithTracerProvider(s.Tracing), otelecho.WithPropagators(propagation.TraceContext{}), otelecho.WithSkipper(unobserved)),
			tagSpan)
	}
	if len(chain) > 0 {
		chain = slices.Insert(chain, 0, dropAnswered)
	}
	return chain
}

// unobserved reports whether the request gets no span: machines send such requests every few seconds.
func unobserved(c echo.Context) bool {
	switch c.Path() {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return false
}

const (
	// idAttribute is the name in OpenTelemetry's semantic conventions for the answer's X-Request-Id header. Unlike the
	// request's header, it is always there.
	idAttribute = "http.response.header.x-request-id"

	// spanKey is the key in Echo's context for the span's context, which log lines need after the span has ended.
	spanKey = "afterwrite-span"
)

// tagSpan adds the request ID to the span, and stores the span's context for logContext.
func tagSpan(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		span := trace.SpanFromContext(c.Request().Context())
		if at := span.SpanContext(); at.IsValid() {
			c.Set(spanKey, at)
		}
		if span.IsRecording() {
			span.SetAttributes(attribute.StringSlice(idAttribute, []string{requestID(c)}))
		}
		return next(c)
	}
}

// logContext returns the context for a log line about the request. It has the trace even after the span has ended.
func logContext(c echo.Context) context.Context {
	ctx := c.Request().Context()
	if at, traced := c.Get(spanKey).(trace.SpanContext); traced {
		ctx = trace.ContextWithSpanContext(ctx, at)
	}
	return ctx
}

// dropAnswered drops an error that already has an answer. otelecho returns it too, and Echo would handle it a second time.
func dropAnswered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := next(c); err != nil && !c.Response().Committed {
			return err
		}
		return nil
	}
}

// accessLog logs each request. It answers errors itself, because the line has the status.
func (s *server) accessLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		if err := next(c); err != nil && !c.Response().Committed {
			c.Error(err)
		}
		r := c.Request()
		s.Logger.LogAttrs(logContext(c), slog.LevelDebug, "request",
			slog.String("request_id", requestID(c)), slog.String("method", method(r)), slog.String("route", c.Path()),
			slog.Int("status", c.Response().Status), slog.Duration("duration", time.Since(began)))
		return nil
	}
}

// maxMethodBytes bounds the method in a log line, because clients can invent methods.
const maxMethodBytes = 16

func method(r *http.Request) string { return r.Method[:min(len(r.Method), maxMethodBytes)] }

// Bounds on the log of failures. While Redis is down every request fails for the same reason: a few lines are as useful as 50,000
// a second, and those would fill a disk. Internal errors are bugs, and their lines are not limited.
const (
	failuresPerSecond = 10
	failuresBurst     = 100
)

// failureLog logs what counter.Error keeps from clients, once for each request and error code. All but internal errors are
// rate-limited.
type failureLog struct {
	logger     *slog.Logger
	limit      *rate.Limiter
	suppressed atomic.Int64 // failures since the last line that were not logged
}

func newFailureLog(logger *slog.Logger) *failureLog {
	return &failureLog{logger: logger, limit: rate.NewLimiter(failuresPerSecond, failuresBurst)}
}

// log logs e if it has an Err and a 5xx status: a rejection such as backpressure has no Err and is only counted in a metric.
// Unless e is internal, it is dropped after the client has disconnected and beyond the rate limit. operations is the number of
// operations that failed with e's code.
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
		l.suppressed.Add(1)
	}
}

func (l *failureLog) line(c echo.Context, level slog.Level, e *counter.Error, operations int) {
	l.logger.Log(logContext(c), level, "request failed",
		"request_id", requestID(c), "method", method(c.Request()), "route", c.Path(),
		"code", string(e.Code), "operations", operations, "error", e.Err, "suppressed", l.suppressed.Swap(0))
}
