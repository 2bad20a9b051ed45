// Package tracing sends OpenTelemetry traces over OTLP/HTTP. It is off, and nothing of it in the way of a request, unless
// OTEL_EXPORTER_OTLP_ENDPOINT is set.
//
//	traces, err := tracing.Start(ctx, tracing.Options{Endpoint: config.OTLPEndpoint, Process: "api", Logger: log})
//	log, err = traces.Logger(log), traces.Redis(client)
//	defer traces.Close(ctx)
//
// A nil *Tracing is one that is off: all of its methods do nothing.
package tracing

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
	"golang.org/x/time/rate"
)

// complainEvery is the time between two lines about a collector that does not answer: batches fail every five seconds.
const complainEvery = time.Minute

// Options are what Start needs.
type Options struct {
	// Endpoint is OTEL_EXPORTER_OTLP_ENDPOINT; empty: no traces. It only decides that: the exporter reads the variables of OpenTelemetry
	// itself, that one among them.
	Endpoint string
	// Process is the name of the process: its service is called afterwrite-<process>, unless OTEL_SERVICE_NAME says otherwise.
	Process string
	Version string
	Logger  *slog.Logger
}

// Tracing makes spans and sends them, in the background. What the collector does not take is dropped: at most 2,048 spans wait
// (OTEL_BSP_MAX_QUEUE_SIZE).
type Tracing struct{ provider *sdk.TracerProvider }

// Start returns a Tracing, nil where there is no endpoint. It does not wait for the collector.
func Start(ctx context.Context, o Options) (*Tracing, error) {
	if o.Endpoint == "" {
		return nil, nil //nolint:nilnil // a nil *Tracing is one that is off
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "afterwrite-"+o.Process), attribute.String("service.version", o.Version)),
		resource.WithHost(), resource.WithProcessPID(),
		resource.WithFromEnv()) // the last counts
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(newComplaints(o.Logger))
	o.Logger.Info("sending traces")
	return &Tracing{provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))}, nil
}

// Provider is what makes spans; nil when it is off.
func (t *Tracing) Provider() trace.TracerProvider { //nolint:ireturn // nil is no provider, which a nil pointer in it would be
	if t == nil {
		return nil
	}
	return t.provider
}

// Redis makes a span of each command that is part of a trace. The keys and values of commands are not in it.
func (t *Tracing) Redis(client redis.UniversalClient) error {
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

// OpenDB is sql.OpenDB whose statements are spans where they are part of a trace; nil when it is off. Their arguments are not in it.
func (t *Tracing) OpenDB() func(driver.Connector) *sql.DB {
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

// Close sends what there is, for as long as ctx allows.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// complaints logs what goes wrong with traces, now and then.
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
