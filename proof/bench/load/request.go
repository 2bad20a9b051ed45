package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
)

// batchBodies is the number of different batches, sent in turn; as in wrk.lua.
const batchBodies = 64

// requests makes the bytes of requests, as wrk.lua does.
type requests struct {
	spec HTTPSpec
	host string
	sums []float64 // cumulated weights of the keys, for Zipf

	batches [][]byte
}

func newRequests(spec HTTPSpec, host string) *requests {
	r := &requests{spec: spec, host: host}
	if spec.Keys == Zipf {
		sum := 0.0
		r.sums = make([]float64, spec.Space)
		for i := range r.sums {
			sum += math.Pow(float64(i+1), -1.1)
			r.sums[i] = sum
		}
	}
	if spec.Batch > 0 {
		r.makeBatches()
	}
	return r
}

// drawer returns a function that returns the next request of a connection, valid until the one after it.
func (r *requests) drawer(seed, connection uint64) func() []byte {
	random := rand.New(rand.NewPCG(seed, connection+2)) //nolint:gosec // load needs no secret
	if r.spec.Batch > 0 {
		turn := random.IntN(batchBodies)
		return func() []byte {
			turn = (turn + 1) % batchBodies
			return r.batches[turn]
		}
	}
	text := r.single(0)
	digits := strings.Index(string(text), r.spec.Prefix+"000000000000") + len(r.spec.Prefix)
	return func() []byte {
		putDigits(text[digits:digits+12], r.draw(random))
		return text
	}
}

// draw returns the number of a key.
func (r *requests) draw(random *rand.Rand) int {
	switch r.spec.Keys {
	case Hot:
		return 0
	case Uniform:
		return random.IntN(r.spec.Space)
	case Zipf:
		drawn := random.Float64() * r.sums[len(r.sums)-1]
		return min(sort.SearchFloat64s(r.sums, drawn), r.spec.Space-1)
	}
	return 0
}

// putDigits writes n over b, with zeros before it.
func putDigits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

func (r *requests) single(key int) []byte {
	name := fmt.Sprintf("%s%012d", r.spec.Prefix, key)
	switch r.spec.Form {
	case FormGet:
		return r.get("/v1/counters/" + name)
	case FormWebdis:
		return r.get("/INCRBY/" + name + "/1")
	case FormIncrement:
	}
	return r.post("/v1/counters/"+name+"/increment", `{"by":1}`)
}

func (r *requests) get(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, r.host)
}

func (r *requests) post(path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, r.host, len(body), body)
}

// makeBatches makes the batches that all connections send.
func (r *requests) makeBatches() {
	random := rand.New(rand.NewPCG(r.spec.Seed, 0)) //nolint:gosec // load needs no secret
	for range batchBodies {
		operations := make([]string, r.spec.Batch)
		for i := range operations {
			operations[i] = fmt.Sprintf(`{"op":"increment","key":"%s%012d","by":1}`, r.spec.Prefix, r.draw(random))
		}
		r.batches = append(r.batches, r.post("/v1/batch", `{"operations":[`+strings.Join(operations, ",")+`]}`))
	}
}
