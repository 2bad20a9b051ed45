package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// answerPatience is the time limit for an answer. wrk has the same.
	answerPatience = 10 * time.Second
	// maxDue limits the number of requests, and so the schedule to 80 MB.
	maxDue = 10_000_000

	// The bounds of the histograms in µs. Longer latencies count as longestLatency.
	shortestLatency = 1
	longestLatency  = int64(120 * time.Second / time.Microsecond)
	latencyDigits   = 3
)

// OpenSpec describes the load of Open: single increments of random keys at a fixed rate.
type OpenSpec struct {
	URL         string // http://127.0.0.1:port, or redis://127.0.0.1:port for INCRBY over the Redis protocol
	Space       int    // number of keys
	Connections int
	Duration    time.Duration
	Seed        uint64  // seed of the random keys and times
	Rate        float64 // requests per second
}

// OpenResult is the result of Open. A latency is the time from when a request was due until it was answered or failed.
type OpenResult struct {
	Sent   int64 // number of requests that were due
	Failed int64 // number of those without a 2xx answer within 10 s
	P50    time.Duration
	P90    time.Duration
	P99    time.Duration
	P999   time.Duration
	Max    time.Duration
	// LateP99 is the 99th percentile of the delay between due and sent that the load generator itself caused. Latencies include it.
	LateP99 time.Duration
	// Histogram holds the latencies in µs, up to 120 s, with 3 digits.
	Histogram *hdrhistogram.Histogram
}

// Open sends requests at the times of a Poisson process, on the connections in turn. A request may wait for the previous one on its
// connection, but its latency starts when it was due, so a stalled server is charged for every request due meanwhile. Use enough
// connections for each to have at most one request in flight: 5,000/s with answers within 20 ms need 100.
//
// The last request is due before spec.Duration ends. Open blocks until all requests are answered, for at most 10 s more. When ctx is
// done, Open returns ctx's error at once.
func Open(ctx context.Context, spec OpenSpec) (result OpenResult, err error) {
	defer wrap(&err, "open loop")
	target, err := url.Parse(spec.URL)
	if err != nil {
		return OpenResult{}, err
	}
	due, err := schedule(spec)
	if err != nil {
		return OpenResult{}, err
	}
	r := &recorder{
		latencies: hdrhistogram.New(shortestLatency, longestLatency, latencyDigits),
		lateness:  hdrhistogram.New(shortestLatency, longestLatency, latencyDigits),
	}
	connections, err := dialAll(ctx, target.Host, spec, r, len(due)/spec.Connections+1)
	if err != nil {
		return OpenResult{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		for _, c := range connections {
			c.abort()
		}
	})
	defer stop()

	var ended sync.WaitGroup
	began := time.Now()
	giveUp := began.Add(spec.Duration + answerPatience)
	for _, c := range connections {
		ended.Go(func() { c.run(began, giveUp) })
	}
	deal(ctx, began, due, connections)
	ended.Wait()
	if err := ctx.Err(); err != nil {
		return OpenResult{}, err
	}
	return r.result(), nil
}

// schedule draws the times when requests are due, since the start.
func schedule(spec OpenSpec) ([]time.Duration, error) {
	expected := spec.Rate * spec.Duration.Seconds()
	if expected <= 0 || expected > maxDue {
		return nil, fmt.Errorf("%g/s for %s must be more than 0 and at most %d requests", spec.Rate, spec.Duration, maxDue)
	}
	random := rand.New(rand.NewPCG(spec.Seed, 1)) //nolint:gosec // the load must be repeatable
	due := make([]time.Duration, 0, int(expected+4*math.Sqrt(expected))+1)
	for at := 0.0; len(due) < 2*maxDue; {
		at += random.ExpFloat64() / spec.Rate
		if at >= spec.Duration.Seconds() {
			break
		}
		due = append(due, time.Duration(at*float64(time.Second)))
	}
	if len(due) == 0 {
		return nil, errors.New("no request is due in that time")
	}
	return due, nil
}

// nap is the shortest sleep. A thread that wakes up for every request would use as much CPU time as the server. The latencies include
// the delay of a nap.
const nap = 300 * time.Microsecond

// deal gives requests to the connections when they are due, and closes their channels after the last one. It runs on a thread of its
// own, which sleeps more precisely than Go's timers: those have a resolution of 1 ms while the program is idle.
func deal(ctx context.Context, began time.Time, due []time.Duration, connections []*connection) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, at := range due {
		for wait := at - time.Since(began); wait > 0; wait = at - time.Since(began) {
			sleep(max(wait, nap)) // a signal, which the Go runtime sends too, ends it early
		}
		if ctx.Err() != nil {
			break
		}
		connections[i%len(connections)].due <- at // never blocks: it has room for all requests
	}
	for _, c := range connections {
		close(c.due)
	}
}

// dialAll opens the connections. room is the maximum number of requests of each.
func dialAll(ctx context.Context, address string, spec OpenSpec, r *recorder, room int) ([]*connection, error) {
	connections := make([]*connection, 0, spec.Connections)
	for i := range spec.Connections {
		c := &connection{
			address: address, recorder: r, due: make(chan time.Duration, room),
			request: spec.requests(address, uint64(i)), parse: parseAnswer,
		}
		if spec.isRedis() {
			c.request, c.parse = spec.commands(uint64(i)), parseReply
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			for _, c := range connections {
				c.abort()
			}
			return nil, err
		}
		c.use(conn)
		connections = append(connections, c)
	}
	return connections, nil
}

// requests returns a function that builds the next request of a connection: an increment of a random key. The bytes are valid until
// the next call.
func (spec OpenSpec) requests(host string, connection uint64) func() []byte {
	const start = "POST /v1/counters/" + keyPrefix
	random := rand.New(rand.NewPCG(spec.Seed, connection+2)) //nolint:gosec // the load must be repeatable
	text := fmt.Appendf(nil, "%s%012d/increment HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"+
		`{"by":1}`, start, 0, host)
	return func() []byte {
		_ = fmt.Appendf(text[:len(start)], "%012d", random.IntN(spec.Space)) // overwrites the digits in text
		return text
	}
}

func (spec OpenSpec) isRedis() bool { return strings.HasPrefix(spec.URL, "redis://") }

// commands is requests for the Redis protocol.
func (spec OpenSpec) commands(connection uint64) func() []byte {
	const start = "*3\r\n$6\r\nINCRBY\r\n$20\r\n" + keyPrefix
	random := rand.New(rand.NewPCG(spec.Seed, connection+2)) //nolint:gosec // the load must be repeatable
	text := fmt.Appendf(nil, "%s%012d\r\n$1\r\n1\r\n", start, 0)
	return func() []byte {
		_ = fmt.Appendf(text[:len(start)], "%012d", random.IntN(spec.Space)) // overwrites the digits in text
		return text
	}
}

// recorder collects the results of the connections.
type recorder struct {
	mu        sync.Mutex
	sent      int64
	failed    int64
	latencies *hdrhistogram.Histogram
	lateness  *hdrhistogram.Histogram
}

// record adds one request. late is negative if the delay was caused by the previous request on the connection.
func (r *recorder) record(latency, late time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	if !ok {
		r.failed++
	}
	_ = r.latencies.RecordValue(micros(latency)) // fails only for values out of bounds
	if late >= 0 {
		_ = r.lateness.RecordValue(micros(late))
	}
}

func micros(d time.Duration) int64 {
	return min(max(int64(d/time.Microsecond), shortestLatency), longestLatency)
}

func (r *recorder) result() OpenResult {
	at := func(h *hdrhistogram.Histogram, percentile float64) time.Duration {
		return time.Duration(h.ValueAtQuantile(percentile)) * time.Microsecond
	}
	return OpenResult{
		Sent: r.sent, Failed: r.failed,
		P50: at(r.latencies, 50), P90: at(r.latencies, 90), P99: at(r.latencies, 99), P999: at(r.latencies, 99.9),
		Max:     time.Duration(r.latencies.Max()) * time.Microsecond,
		LateP99: at(r.lateness, 99), Histogram: r.latencies,
	}
}
