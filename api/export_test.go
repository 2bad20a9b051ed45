package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// DecodeKey is decodeKey.
func DecodeKey(encoded string) (counter.Key, error) { return decodeKey(encoded) }

// Planned is one operation of a decoded batch.
type Planned struct {
	counter.Operation

	Err error
}

// DecodeBatch decodes the body of a batch.
func DecodeBatch(text string) ([]Planned, error) {
	b := bodyOf(text)
	defer b.close()
	plan, err := b.operations()
	planned := make([]Planned, len(plan))
	for i, p := range plan {
		planned[i] = Planned{Operation: p.Operation, Err: p.err}
	}
	return planned, err
}

// DecodeIncrement decodes the body of an increment.
func DecodeIncrement(text string) (op counter.Operation, err error) {
	b := bodyOf(text)
	defer b.close()
	op.Kind = counter.Increment
	return op, b.amount(&op)
}

func bodyOf(text string) *body {
	b := bodies.Get().(*body)
	b.source = source{reader: strings.NewReader(text)}
	b.json.Reset(&b.source)
	return b
}

// AppendCounter is appendCounter.
func AppendCounter(b []byte, c counter.Counter) []byte { return appendCounter(b, c) }

// PrefersMinimal reports whether readPreferences finds return=minimal.
func PrefersMinimal(h http.Header) bool { return readPreferences(h).minimal }

// PreferredWait returns the wait that readPreferences finds.
func PreferredWait(h http.Header) time.Duration { return readPreferences(h).wait }

// Routes returns every route, including the admin routes.
func Routes() []*echo.Route { return complete().router().Routes() }

// Scopes returns the scope of each route by method and path, as the table of routes has them.
func Scopes() map[string]auth.Scope {
	scopes := make(map[string]auth.Scope)
	for _, r := range complete().routes() {
		scopes[r.method+" "+r.path] = r.scope
	}
	return scopes
}

// complete returns a server that has every route.
func complete() *server {
	keys, err := auth.New(auth.Options{AdminToken: "token"})
	if err != nil {
		panic(err)
	}
	health := map[string]http.Handler{"/healthz": nil, "/readyz": nil, "/metrics": nil}
	return newServer(nil, Options{
		Keys: keys, Operator: new(operate.Service), Flusher: new(operate.Service), Lister: new(catalog.Catalog), Health: health,
		Historian: catalog.New(catalog.Options{Cache: new(cache.Cache)}),
	})
}

// Statuses returns the status of every code.
func Statuses() map[counter.Code]int {
	statuses := make(map[counter.Code]int, len(problems))
	for code, p := range problems {
		statuses[code] = p.status
	}
	return statuses
}

// Held is the number of slots that each limiter has given to bodies.
type Held struct{ Small, Large int }

// NewWithSlots is New with these numbers of slots for bodies. held returns the slots in use.
func NewWithSlots(counters Counters, options Options, small, large int, grace time.Duration) (handler http.Handler, held func() Held) {
	s := newServer(counters, options)
	s.admission = newAdmission(small, large, grace)
	count := func(l *limiter) int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.holders)
	}
	return s.router(), func() Held { return Held{count(s.admission.small), count(s.admission.large)} }
}

// NewWithAdminTimeout is New with this timeout for each admin request.
func NewWithAdminTimeout(counters Counters, options Options, timeout time.Duration) http.Handler {
	s := newServer(counters, options)
	s.adminTimeout = timeout
	return s.router()
}

// Observers returns the number of middleware functions that log or trace requests.
func Observers(counters Counters, options Options) int {
	return len(newServer(counters, options).observers())
}

// NewWithStreamLimits is New with these limits for each stream: the time for a line to arrive, and for the client to read.
func NewWithStreamLimits(counters Counters, options Options, line, write time.Duration) http.Handler {
	s := newServer(counters, options)
	s.streamLimits.line, s.streamLimits.write = line, write
	return s.router()
}

// MaxStreams is maxStreams, MaxGroupLines is maxGroupLines, and MaxErrorLines is maxErrorLines.
const (
	MaxStreams    = maxStreams
	MaxGroupLines = maxGroupLines
	MaxErrorLines = maxErrorLines
)
