package api

import (
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// batch carries out many operations in order and answers with one result for each.
func (s *server) batch(c echo.Context) error {
	id, err := requestIdempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	prefers := readPreferences(c.Request().Header)
	options, err := prefers.options()
	if err != nil {
		return err
	}
	plan, err := s.readBatch(c)
	if err != nil {
		return err
	}
	if err := withoutPreconditions(c.Request().Header); err != nil {
		return err
	}
	if err := permit(c, plan); err != nil {
		return err
	}
	identify(plan, id)
	results := s.carryOut(c, plan, options)
	s.countFailures(c, results)

	outcome := summarize(results)
	setReplayed(c, outcome.replayed)
	late := prefers.waitsForPostgres() && outcome.late
	switch {
	case outcome.failed == len(results) && outcome.common != nil:
		writeProblem(c, outcome.common) // counted and logged by countFailures
	case prefers.minimal && outcome.failed == 0 && !late:
		prefers.applied(c, true)
		noContent(c)
	default:
		prefers.applied(c, false)
		status := http.StatusOK
		if late {
			status = http.StatusAccepted
		}
		answerResults(c, status, plan, results)
	}
	return nil
}

// readBatch reads the body of a batch, if admission has a slot for it.
func (s *server) readBatch(c echo.Context) (plan []planned, err error) {
	err = s.admitBody(c, func(b *body) error {
		if b == nil {
			return invalidBody(`the body is empty: send {"operations": [...]}`)
		}
		plan, err = b.operations()
		return err
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// identify gives an ID to each operation that has none: the request's Idempotency-Key and the operation's position among the
// operations on its key. So a repeated batch gets the same IDs even if its keys are in another order. Clients cannot send such
// an ID, because it has a control character.
func identify(plan []planned, request string) {
	if request == "" {
		return
	}
	positions := make(map[counter.Key]int, len(plan))
	for i, p := range plan {
		if p.err != nil || p.ID != "" {
			continue
		}
		plan[i].ID = request + "\x01" + strconv.Itoa(positions[p.Key])
		positions[p.Key]++
	}
}

// carryOut returns a result for each planned operation. An invalid operation has its own error as the result.
func (s *server) carryOut(c echo.Context, plan []planned, options writepath.Options) []counter.Result {
	ops := make([]counter.Operation, 0, len(plan))
	for _, p := range plan {
		if p.err == nil {
			ops = append(ops, p.Operation)
		}
	}
	var done []counter.Result
	if len(ops) > 0 {
		done = s.do(c, options, ops...)
	}
	if len(ops) == len(plan) {
		return done
	}
	results := make([]counter.Result, len(plan))
	for i, p := range plan {
		if p.err != nil {
			results[i].Err = p.err
			continue
		}
		results[i], done = done[0], done[1:]
	}
	return results
}

// countFailures counts each operation that failed, and logs each error code once.
func (s *server) countFailures(c echo.Context, results []counter.Result) {
	type group struct {
		first      *counter.Error
		operations int
	}
	groups := make(map[counter.Code]*group)
	for _, r := range results {
		if r.Err == nil {
			continue
		}
		e := asProblem(r.Err)
		s.metrics.Reject(e.Code, 1)
		if groups[e.Code] == nil {
			groups[e.Code] = &group{first: e}
		}
		groups[e.Code].operations++
	}
	for _, g := range groups {
		s.failures.log(c, g.first, g.operations)
	}
}

// summary describes the results of a batch.
type summary struct {
	failed   int            // operations
	common   *counter.Error // the first error, if all errors have its code, and none has a state that only its own counter has
	late     bool           // Postgres lacks an applied operation
	replayed bool           // every result is that of an earlier operation
}

func summarize(results []counter.Result) summary {
	s := summary{replayed: true}
	same := true
	for _, r := range results {
		s.replayed = s.replayed && r.Replayed
		if r.Err == nil {
			s.late = s.late || !r.Counter.Synced
			continue
		}
		s.failed++
		e := asProblem(r.Err)
		if s.common == nil {
			s.common = e
		}
		same = same && e.Code == s.common.Code && (e.Current == nil || len(results) == 1)
	}
	if !same {
		s.common = nil
	}
	return s
}

// answerResults answers with the result of each operation.
func answerResults(c echo.Context, status int, plan []planned, results []counter.Result) {
	buffer := getBuffer()
	defer putBuffer(buffer)

	b := buffer.bytes
	b = append(b, `{"results":[`...)
	for i, r := range results {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendResult(b, plan[i], r)
	}
	b = append(b, `]}`...)
	buffer.bytes = b
	write(c, status, jsonType, b)
}

// appendResult appends the result of one operation of a batch or a stream.
func appendResult(b []byte, p planned, r counter.Result) []byte {
	r.Counter.Key, r.Counter.SyncedVersion = p.Key, 0
	switch {
	case r.Err != nil:
		return appendFailed(b, p.Key, asProblem(r.Err))
	case p.Kind == counter.Delete:
		return appendReplayed(appendDeleted(b, r.Counter), r.Replayed)
	default:
		return appendReplayed(appendCounter(b, r.Counter), r.Replayed)
	}
}
