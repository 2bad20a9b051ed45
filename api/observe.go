package api

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/contrib/instrumentation/github.com/labstack/echo/otelecho"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// observers are the middleware that looks at requests: the access log where debug is on, spans where there is a Tracing. With neither there
// is none, because Echo builds the chain anew for each request. Which it is, is decided once.
func (s *server) observers() []echo.MiddlewareFunc {
	var chain []echo.MiddlewareFunc
	if s.log.Enabled(s.ending, slog.LevelDebug) {
		chain = append(chain, s.accessLog)
	}
	if s.tracing != nil {
		chain = append(chain, otelecho.Middleware("afterwrite-api",
			otelecho.WithTracerProvider(s.tracing), otelecho.WithPropagators(propagation.TraceContext{}), otelecho.WithSkipper(unobserved)),
			nameSpan)
	}
	if len(chain) > 0 {
		chain = slices.Insert(chain, 0, answerErrors)
	}
	return chain
}

// unobserved are the requests of machines that come every few seconds.
func unobserved(c echo.Context) bool {
	switch c.Path() {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return false
}

const (
	// idAttribute is what OpenTelemetry's semantic conventions call the header with the request's ID. That of the answer is there also
	// where the client sent none, or one that is not taken over.
	idAttribute = "http.response.header.x-request-id"

	// spanKey is where the span of a request is kept for those outside of it.
	spanKey = "afterwrite-span"
)

// nameSpan says on the span which request it is, and to who logs the request in which trace it is.
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

// logContext is the context for a line about the request: with its trace, also where its span has ended.
func logContext(c echo.Context) context.Context {
	ctx := c.Request().Context()
	if at, traced := c.Get(spanKey).(trace.SpanContext); traced {
		ctx = trace.ContextWithSpanContext(ctx, at)
	}
	return ctx
}

// answerErrors ends an error that was answered within the chain: otelecho passes it on, and it would be counted twice.
func answerErrors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := next(c); err != nil && !c.Response().Committed {
			return err
		}
		return nil
	}
}

// accessLog writes a line for each request, errors answered.
func (s *server) accessLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		if err := next(c); err != nil && !c.Response().Committed {
			c.Error(err)
		}
		r := c.Request()
		s.log.LogAttrs(logContext(c), slog.LevelDebug, "request",
			slog.String("request_id", answerID(c)), slog.String("method", method(r)), slog.String("route", c.Path()),
			slog.Int("status", c.Response().Status), slog.Duration("duration", time.Since(began)))
		return nil
	}
}

// maxMethodBytes bounds what of a made-up method is logged.
const maxMethodBytes = 16

func method(r *http.Request) string { return r.Method[:min(len(r.Method), maxMethodBytes)] }
