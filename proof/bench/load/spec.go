package load

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Keys says how the keys of the requests are drawn.
type Keys string

// The ways to draw keys.
const (
	Hot     Keys = "hot"     // always the same
	Zipf    Keys = "zipf"    // key n with a weight of 1/n^1.1
	Uniform Keys = "uniform" // each equally often
)

// Form is what a request asks for.
type Form string

// The forms of a request.
const (
	FormIncrement Form = ""       // POST /v1/counters/<key>/increment, by 1
	FormGet       Form = "get"    // GET /v1/counters/<key>
	FormWebdis    Form = "webdis" // GET /INCRBY/<key>/1
)

const (
	defaultSpace       = 100_000
	defaultConnections = 200
	defaultThreads     = 2
	defaultPrefix      = "counter:"

	maxSpace       = 1_000_000
	maxConnections = 10_000
	maxBatch       = 1000 // as the api takes
)

// HTTPSpec is a load of increments by 1, or of reads. Only URL, Keys and Duration are required.
type HTTPSpec struct {
	URL         string // http://127.0.0.1:port
	Keys        Keys
	Space       int // keys, 1 to 1,000,000; 0 takes 100,000
	Connections int // 1 to 10,000; 0 takes 200
	Threads     int // of wrk; 0 takes 2
	Duration    time.Duration
	Batch       int    // 0: one increment a request; else operations per POST /v1/batch, at most 1,000
	Prefix      string // of the keys' names, before 12 digits; "" takes "counter:"
	Form        Form   // of a single request
	Seed        uint64 // of the random numbers
}

// complete returns spec with its defaults filled in, or an error if it is invalid.
func (spec HTTPSpec) complete() (HTTPSpec, error) {
	spec.Space = cmp.Or(spec.Space, defaultSpace)
	spec.Connections = cmp.Or(spec.Connections, defaultConnections)
	spec.Threads = cmp.Or(spec.Threads, defaultThreads)
	spec.Prefix = cmp.Or(spec.Prefix, defaultPrefix)
	return spec, errors.Join(spec.checkKeys(), spec.checkForm(), spec.checkLoad())
}

func (spec HTTPSpec) checkKeys() error {
	switch {
	case spec.Keys != Hot && spec.Keys != Zipf && spec.Keys != Uniform:
		return fmt.Errorf("the keys are hot, zipf or uniform, not %q", spec.Keys)
	case spec.Space < 1 || spec.Space > maxSpace:
		return fmt.Errorf("there are 1 to %d keys, not %d", maxSpace, spec.Space)
	case strings.Trim(spec.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:") != "":
		return fmt.Errorf("the prefix takes letters, digits, -, _ and :, not %q", spec.Prefix)
	}
	return nil
}

func (spec HTTPSpec) checkForm() error {
	switch {
	case spec.Form != FormIncrement && spec.Form != FormGet && spec.Form != FormWebdis:
		return fmt.Errorf("the form of a request is not %q", spec.Form)
	case spec.Batch < 0 || spec.Batch > maxBatch || spec.Batch > 0 && spec.Form != FormIncrement:
		return fmt.Errorf("a batch has up to %d operations, all increments", maxBatch)
	}
	return nil
}

func (spec HTTPSpec) checkLoad() error {
	target, err := url.Parse(spec.URL)
	switch {
	case err != nil:
		return err
	case target.Scheme != "http" || target.Port() == "" || strings.Trim(target.Path, "/") != "":
		return fmt.Errorf("the URL takes http://host:port, not %q", spec.URL)
	case spec.Connections < spec.Threads || spec.Connections > maxConnections || spec.Threads < 1:
		return fmt.Errorf("there are as many connections as threads to %d, not %d", maxConnections, spec.Connections)
	case spec.Duration <= 0:
		return errors.New("the duration is not positive")
	}
	return nil
}
