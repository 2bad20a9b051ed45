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
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// answerPatience is the time limit of an answer, the same as for wrk.
	answerPatience = 10 * time.Second
	// maxDue bounds the requests of one Open, and its schedule to 80 MB.
	maxDue = 10_000_000

	// The histogram's bounds, in µs. A longer latency counts as longestLatency.
	shortestLatency = 1
	longestLatency  = int64(120 * time.Second / time.Microsecond)
	latencyDigits   = 3
)

// OpenSpec is a load with a fixed rate.
type OpenSpec struct {
	HTTPSpec

	Rate float64 // requests per second
}

// OpenResult is the result of Open. Latencies are measured from when a request was due until it was answered or had failed.
type OpenResult struct {
	Sent   int64         `json:"sent"`   // requests that were due
	Failed int64         `json:"failed"` // of them: not answered with 2xx, or not within 10 s, or never sent for that
	Rate   float64       `json:"rate"`   // answered with 2xx per second, from the first due to the last answer
	P50    time.Duration `json:"p50_ns"`
	P90    time.Duration `json:"p90_ns"`
	P99    time.Duration `json:"p99_ns"`
	P999   time.Duration `json:"p999_ns"`
	Max    time.Duration `json:"max_ns"`
	// LateP99 is the delay of the generator itself in handing a request to its connection. The latencies include it.
	LateP99 time.Duration `json:"late_p99_ns"`
	// Histogram holds the latencies in µs, up to 120 s, to 3 digits.
	Histogram *hdrhistogram.Histogram `json:"-"`
}

// Open sends requests at the moments of a Poisson process, dealt to the connections in turn. A request may have to wait for the
// previous one on its connection, but its latency is measured from when it was due. So a server that stalls is charged for every
// request that was due meanwhile. Use enough connections for each to have at most one request in flight: a rate of 5,000/s with
// answers within 20 ms takes 100.
//
// The last request is due before spec.Duration ends. Open blocks until all are answered, for at most 10 s more. When ctx is done it
// stops at once with ctx's error.
func Open(ctx context.Context, spec OpenSpec) (result OpenResult, err error) {
	defer wrap(&err, "open loop")
	if spec.HTTPSpec, err = spec.complete(); err != nil {
		return OpenResult{}, err
	}
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
	return r.result(time.Since(began)), nil
}

// schedule draws the moments when requests are due, since the start.
func schedule(spec OpenSpec) ([]time.Duration, error) {
	expected := spec.Rate * spec.Duration.Seconds()
	if !(spec.Rate > 0) || expected > maxDue { // so that NaN is refused too
		return nil, fmt.Errorf("a rate of %g/s for %s is not positive, or more than %d requests", spec.Rate, spec.Duration, maxDue)
	}
	random := rand.New(rand.NewPCG(spec.Seed, 1)) //nolint:gosec // load needs no secret
	due := make([]time.Duration, 0, int(expected+4*math.Sqrt(expected))+1)
	for at := 0.0; len(due) < 2*maxDue; {
		at += random.ExpFloat64() / spec.Rate
		if at >= spec.Duration.Seconds() {
			break
		}
		due = append(due, time.Duration(at*float64(time.Second)))
	}
	if len(due) == 0 {
		return nil, errors.New("not one request is due in that time")
	}
	return due, nil
}

// nap is the shortest sleep. A thread that wakes up for each single request would take as much CPU time as the server. The delay
// that it adds counts as the server's latency.
const nap = 300 * time.Microsecond

// deal hands requests to the connections when they are due, and closes their channels after the last one. It has a thread of its
// own: Go's timers have a resolution of a millisecond while the program is idle, and a thread sleeps more precisely.
func deal(ctx context.Context, began time.Time, due []time.Duration, connections []*connection) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, at := range due {
		for wait := at - time.Since(began); wait > 0; wait = at - time.Since(began) {
			sleep(max(wait, nap)) // ends early for signals, which Go sends itself
		}
		if ctx.Err() != nil {
			break
		}
		connections[i%len(connections)].due <- at // has room for all
	}
	for _, c := range connections {
		close(c.due)
	}
}

// dialAll opens the connections one after the other. room is the number of requests that each will send.
func dialAll(ctx context.Context, address string, spec OpenSpec, r *recorder, room int) ([]*connection, error) {
	requests := newRequests(spec.HTTPSpec, address)
	connections := make([]*connection, 0, spec.Connections)
	for i := range spec.Connections {
		c := &connection{
			address: address, recorder: r, due: make(chan time.Duration, room),
			requests: requests.drawer(spec.Seed, uint64(i)),
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

// recorder collects the results of the connections.
type recorder struct {
	mu        sync.Mutex
	sent      int64
	failed    int64
	latencies *hdrhistogram.Histogram
	lateness  *hdrhistogram.Histogram
}

// record notes one request. late is negative if the previous request on its connection caused the delay.
func (r *recorder) record(latency, late time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	if !ok {
		r.failed++
	}
	_ = r.latencies.RecordValue(micros(latency)) // it fails only for what is out of bounds
	if late >= 0 {
		_ = r.lateness.RecordValue(micros(late))
	}
}

func micros(d time.Duration) int64 {
	return min(max(int64(d/time.Microsecond), shortestLatency), longestLatency)
}

func (r *recorder) result(took time.Duration) OpenResult {
	at := func(h *hdrhistogram.Histogram, percentile float64) time.Duration {
		return time.Duration(h.ValueAtQuantile(percentile)) * time.Microsecond
	}
	return OpenResult{
		Sent: r.sent, Failed: r.failed, Rate: float64(r.sent-r.failed) / took.Seconds(),
		P50: at(r.latencies, 50), P90: at(r.latencies, 90), P99: at(r.latencies, 99), P999: at(r.latencies, 99.9),
		Max:     time.Duration(r.latencies.Max()) * time.Microsecond,
		LateP99: at(r.lateness, 99), Histogram: r.latencies,
	}
}
