package command

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// otlp is a collector of traces, as OTLP/HTTP has it.
type otlp struct {
	*httptest.Server

	mu    sync.Mutex
	spans []span
}

// span is one, with the service that it came from.
type span struct {
	*spans.Span

	service string
}

func startOTLP(t *testing.T) *otlp {
	t.Helper()
	o := &otlp{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
		var export collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &export) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		o.take(&export)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *otlp) take(export *collector.ExportTraceServiceRequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, resource := range export.GetResourceSpans() {
		service := ""
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				o.spans = append(o.spans, span{Span: s, service: service})
			}
		}
	}
}

// all are the spans of a trace that have arrived.
func (o *otlp) all(trace string) []span {
	o.mu.Lock()
	defer o.mu.Unlock()
	var of []span
	for _, s := range o.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			of = append(of, s)
		}
	}
	return of
}

// below finds a span of the service whose name begins so, and which descends from ancestor; nil: from nobody of ours.
func below(all []span, service, name string, ancestor *span) *span {
	parents := make(map[string]span, len(all))
	for _, s := range all {
		parents[string(s.GetSpanId())] = s
	}
	for _, s := range all {
		if s.service != service || !strings.HasPrefix(s.GetName(), name) {
			continue
		}
		if ancestor == nil {
			return &s
		}
		for at, ok := parents[string(s.GetParentSpanId())]; ok; at, ok = parents[string(at.GetParentSpanId())] {
			if string(at.GetSpanId()) == string(ancestor.GetSpanId()) {
				return &s
			}
		}
	}
	return nil
}

func TestTraceLeadsFromTheRequestToPostgres(t *testing.T) {
	t.Parallel()
	o := startOTLP(t)
	env := append(servers(t), "OTEL_EXPORTER_OTLP_ENDPOINT="+o.URL, "OTEL_BSP_SCHEDULE_DELAY=50", "AFTERWRITE_LOG_LEVEL=debug")
	api := start(t, env, "api")
	worker := start(t, env, "worker")
	url := api.url(t)
	worker.url(t)

	const trace = "0af7651916cd43dd8448eb211c80319c"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/counters/secret-key/increment", http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)

	localtest.Eventually(t, patience, func() (bool, string) {
		all := o.all(trace)
		names := make([]string, len(all))
		for i, s := range all {
			names[i] = s.service + ": " + s.GetName()
		}
		post := below(all, "afterwrite-api", "POST /v1/counters/:key/increment", nil)
		flush := below(all, "afterwrite-worker", "task flush", nil)
		return post != nil && flush != nil &&
			below(all, "afterwrite-api", "evalsha", post) != nil &&
			below(all, "afterwrite-worker", "task flush", post) != nil &&
			below(all, "afterwrite-worker", "evalsha", flush) != nil &&
			below(all, "afterwrite-worker", "sql.conn.", flush) != nil, strings.Join(names, "\n")
	})
	api.find(t, `msg=request .* trace_id=(`+trace+`)\n`)
	worker.find(t, `msg=flushed .* trace_id=(`+trace+`)\n`)
	api.stop(t)
	worker.stop(t)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.spans {
		if strings.HasPrefix(s.GetName(), "POST ") {
			continue // its attributes have the path
		}
		require.NotContains(t, s.String(), "secret-key", s.GetName())
	}
	for _, s := range o.spans {
		require.NotEmpty(t, s.GetParentSpanId(), "a trace of its own for %s", s.GetName())
	}
}

func TestTracesThatNobodyTakesDoNoHarm(t *testing.T) {
	t.Parallel()
	p := start(t, append(servers(t), "OTEL_EXPORTER_OTLP_ENDPOINT=http://u:hunter2@127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY=20"), "api")
	url := p.url(t)
	answers := func() {
		localtest.Eventually(t, patience, func() (bool, string) { // on a busy machine a cold read may exceed its 100 ms
			status, body := get(t, url+"/v1/counters/a")
			return status == http.StatusNotFound, body
		})
	}
	answers()
	p.find(t, "(traces are not sent)")
	answers()
	p.stop(t)
	require.NotContains(t, p.out.String(), "hunter2")
}
