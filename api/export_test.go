package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// What the tests need to see of the inside.

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

// DecodeInteger decodes a body that holds one integer.
func DecodeInteger(text, field string) (n int64, found bool, err error) {
	b := bodyOf(text)
	defer b.close()
	return b.integerField(field)
}

func bodyOf(text string) *body {
	b := bodies.Get().(*body)
	b.source = source{reader: strings.NewReader(text)}
	b.json.Reset(&b.source)
	return b
}

// AppendCounter is appendCounter.
func AppendCounter(b []byte, c counter.Counter) []byte { return appendCounter(b, c) }

// PrefersMinimal is what readPreferences says about return=minimal.
func PrefersMinimal(h http.Header) bool { return readPreferences(h).minimal }

// PreferredWait is what readPreferences says about wait.
func PreferredWait(h http.Header) time.Duration { return readPreferences(h).wait }

// Routes returns every route, those for operators too.
func Routes() []*echo.Route {
	health := map[string]http.Handler{"/healthz": nil, "/readyz": nil, "/metrics": nil}
	return newServer(nil, Options{Admin: Admin{Token: "token"}, Flusher: new(operate.Service), Health: health}).router().Routes()
}

// Statuses returns the status of every code.
func Statuses() map[counter.Code]int {
	statuses := make(map[counter.Code]int, len(problems))
	for code, p := range problems {
		statuses[code] = p.status
	}
	return statuses
}

// Inside is how many bodies hold a slot of each limiter.
type Inside struct{ Small, Large int }

// NewNarrow is New with room for few batches, and how many bodies are in it.
func NewNarrow(counters Counters, small, large int, grace time.Duration) (handler http.Handler, inside func() Inside) {
	s := newServer(counters, Options{})
	s.batches = newAdmission(small, large, grace)
	count := func(l *limiter) int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.holders)
	}
	return s.router(), func() Inside { return Inside{count(s.batches.small), count(s.batches.large)} }
}

// NewHasty is New with another bound on each admin request.
func NewHasty(counters Counters, options Options, timeout time.Duration) http.Handler {
	s := newServer(counters, options)
	s.adminTimeout = timeout
	return s.router()
}

// Observers counts the middleware of a handler that New would return.
func Observers(counters Counters, options Options) int {
	return len(newServer(counters, options).observers())
}
