package process

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/XSAM/otelsql"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/time/rate"
)

// traceErrorEvery is the time between two log lines about failed exports, which may fail every five seconds.
const traceErrorEvery = time.Minute

// tracing makes OpenTelemetry spans, and sends them over OTLP/HTTP in the background. If the collector is too slow, it drops spans: at most
// 2,048 wait (OTEL_BSP_MAX_QUEUE_SIZE). On a nil *tracing, methods do nothing.
type tracing struct{ provider *sdk.TracerProvider }

// startTracing returns a tracing, or nil if endpoint is empty. The exporter itself reads OpenTelemetry's variables. The service name is
// afterwrite-<process>, unless OTEL_SERVICE_NAME is set. It does not contact the collector.
func startTracing(ctx context.Context, endpoint, process, version string, log *slog.Logger) (*tracing, error) {
	if endpoint == "" {
		return nil, nil //nolint:nilnil // a nil *tracing is off
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "afterwrite-"+process), attribute.String("service.version", version)),
		resource.WithHost(), resource.WithProcessPID(),
		resource.WithFromEnv()) // the last one wins
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(newErrorLog(log))
	log.Info("sending traces")
	return &tracing{provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))}, nil
}

// provide returns the tracer provider, or nil if tracing is off.
func (t *tracing) provide() trace.TracerProvider { //nolint:ireturn // a nil pointer in an interface would not be nil
	if t == nil {
		return nil
	}
	return t.provider
}

// instrument makes a span for each command within a trace, without the command's keys and values.
func (t *tracing) instrument(client redis.UniversalClient) error {
	if t == nil {
		return nil
	}
	err := redisotel.InstrumentTracing(client, redisotel.WithTracerProvider(inside{t.provider}),
		redisotel.WithDBStatement(false), redisotel.WithCallerEnabled(false))
	if err != nil {
		return fmt.Errorf("trace redis: %w", err)
	}
	return nil
}

// openDB returns sql.OpenDB with a span for each statement within a trace, without its arguments, or nil if tracing is off.
func (t *tracing) openDB() func(driver.Connector) *sql.DB {
	if t == nil {
		return nil
	}
	return func(c driver.Connector) *sql.DB {
		return otelsql.OpenDB(c, otelsql.WithTracerProvider(inside{t.provider}),
			otelsql.WithAttributes(attribute.String("db.system.name", "postgresql")),
			otelsql.WithSpanOptions(otelsql.SpanOptions{
				DisableErrSkip: true, OmitConnResetSession: true, OmitConnPrepare: true, OmitRows: true,
			}))
	}
}

// close sends the waiting spans, until ctx is done.
func (t *tracing) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// errorLog logs the errors of tracing, at most one a minute.
type errorLog struct {
	log   *slog.Logger
	limit *rate.Limiter
}

func newErrorLog(log *slog.Logger) errorLog {
	return errorLog{log: log, limit: rate.NewLimiter(rate.Every(traceErrorEvery), 1)}
}

// Handle implements otel.ErrorHandler.
func (c errorLog) Handle(err error) {
	if !errors.Is(err, context.Canceled) && c.limit.Allow() {
		c.log.Warn("traces are not sent", "error", err)
	}
}

// logger returns log with the attribute trace_id (OpenTelemetry's name in logs outside OTLP) in lines within a trace. If tracing is off, it
// returns log itself.
func (t *tracing) logger(log *slog.Logger) *slog.Logger {
	if t == nil {
		return log
	}
	return slog.New(WithTraceID(log.Handler()))
}

// WithTraceID returns next with the attribute trace_id in records whose context has a span.
func WithTraceID(next slog.Handler) slog.Handler {
	return identified{next}
}

type identified struct{ slog.Handler }

// Handle implements slog.Handler.
func (h identified) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h identified) WithAttrs(attrs []slog.Attr) slog.Handler {
	return identified{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h identified) WithGroup(name string) slog.Handler {
	return identified{h.Handler.WithGroup(name)}
}

// inside makes spans only within traces. Otherwise each polling command of Asynq, each sweep and each ping of /readyz would begin a trace.
type inside struct{ trace.TracerProvider }

// Tracer implements trace.TracerProvider.
func (p inside) Tracer(name string, options ...trace.TracerOption) trace.Tracer { //nolint:ireturn // required by the interface
	return insideTracer{p.TracerProvider.Tracer(name, options...)}
}

type insideTracer struct{ trace.Tracer }

// Start implements trace.Tracer.
//
//nolint:ireturn,spancheck // required by the interface; the caller ends the span
func (t insideTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, noop.Span{}
	}
	return t.Tracer.Start(ctx, name, options...)
}
