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

// complainEvery is the time between two log lines about a collector that does not answer. Batches fail every five seconds.
const complainEvery = time.Minute

// tracing makes OpenTelemetry spans and sends them over OTLP/HTTP in the background. It drops what the collector does not take:
// at most 2,048 spans wait (OTEL_BSP_MAX_QUEUE_SIZE). A nil *tracing is off: its methods do nothing.
type tracing struct{ provider *sdk.TracerProvider }

// startTracing returns a tracing, nil unless OTEL_EXPORTER_OTLP_ENDPOINT is set. The exporter reads the variables of OpenTelemetry
// itself; endpoint only decides whether there is one. The service is called afterwrite-<process> unless OTEL_SERVICE_NAME says
// otherwise. It does not wait for the collector.
func startTracing(ctx context.Context, endpoint, process, version string, log *slog.Logger) (*tracing, error) {
	if endpoint == "" {
		return nil, nil //nolint:nilnil // a nil *tracing is one that is off
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
	otel.SetErrorHandler(newComplaints(log))
	log.Info("sending traces")
	return &tracing{provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))}, nil
}

// provide returns what makes spans; nil when tracing is off.
func (t *tracing) provide() trace.TracerProvider { //nolint:ireturn // a nil pointer in an interface would not be nil
	if t == nil {
		return nil
	}
	return t.provider
}

// instrument makes a span of each command that is part of a trace, without the command's keys and values.
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

// openDB returns sql.OpenDB with a span for each statement that is part of a trace, without its arguments; nil when tracing is off.
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

// close sends the spans that wait, for as long as ctx allows.
func (t *tracing) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// complaints logs the errors of tracing, at most one each minute.
type complaints struct {
	log   *slog.Logger
	limit *rate.Limiter
}

func newComplaints(log *slog.Logger) complaints {
	return complaints{log: log, limit: rate.NewLimiter(rate.Every(complainEvery), 1)}
}

// Handle implements otel.ErrorHandler.
func (c complaints) Handle(err error) {
	if !errors.Is(err, context.Canceled) && c.limit.Allow() {
		c.log.Warn("traces are not sent", "error", err)
	}
}

// logger returns log with the attribute trace_id in lines that belong to a trace: the name that OpenTelemetry gives it in logs that
// are not sent as OTLP. It returns log itself when tracing is off.
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

// inside makes spans only within traces. Otherwise each command that Asynq polls with, that sweeps count with, or that /readyz pings
// with would be a trace of its own.
type inside struct{ trace.TracerProvider }

// Tracer implements trace.TracerProvider.
func (p inside) Tracer(name string, options ...trace.TracerOption) trace.Tracer { //nolint:ireturn // the interface has it so
	return insideTracer{p.TracerProvider.Tracer(name, options...)}
}

type insideTracer struct{ trace.Tracer }

// Start implements trace.Tracer.
//
//nolint:ireturn,spancheck // the interface has it so; the caller ends the span
func (t insideTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, noop.Span{}
	}
	return t.Tracer.Start(ctx, name, options...)
}
