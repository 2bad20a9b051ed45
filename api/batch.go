package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// batch carries out many operations in order, and answers with one result for each.
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
	identify(plan, id)
	results := s.carryOut(c, plan, options)
	s.account(c, plan, results)

	common, failed := failures(results)
	sayReplayed(c, allReplayed(results))
	switch {
	case failed == len(results) && common != nil:
		writeProblem(c, common) // counted and logged by account
	case prefers.minimal && failed == 0 && (!prefers.forPostgres() || allSynced(results)):
		prefers.applied(c, true)
		noContent(c)
	case prefers.forPostgres() && !allSynced(results):
		prefers.applied(c, false)
		answerResults(c, http.StatusAccepted, plan, results)
	default:
		prefers.applied(c, false)
		answerResults(c, http.StatusOK, plan, results)
	}
	return nil
}

// allSynced reports that Postgres has all that was applied.
func allSynced(results []counter.Result) bool {
	for _, r := range results {
		if r.Err == nil && !r.Counter.Synced {
			return false
		}
	}
	return true
}

// readBatch reads a batch, as far as there is room for it among the others.
func (s *server) readBatch(c echo.Context) (plan []planned, err error) {
	arriving, err := s.batches.admit(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if expelled := arriving.end(); expelled != nil {
			c.Response().Header().Set(echo.HeaderConnection, "close")
			plan, err = nil, expelled
		}
	}()
	b, err := openBody(c, MaxBatchBodyBytes, arriving)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, invalidBody(`the body is empty: it takes {"operations": [...]}`)
	}
	defer b.close()
	return b.operations()
}

// carryOut returns a result for each planned operation: its own error, or what became of it.
func (s *server) carryOut(c echo.Context, plan []planned, options writepath.Options) []counter.Result {
	ops := make([]counter.Operation, 0, len(plan))
	for _, p := range plan {
		if p.err == nil {
			ops = append(ops, p.Operation)
		}
	}
	var done []counter.Result
	if len(ops) > 0 {
		done = s.do(c, ops, options)
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

// account counts each operation, and logs each kind of failure once.
func (s *server) account(c echo.Context, plan []planned, results []counter.Result) {
	type group struct {
		first      *counter.Error
		operations int
	}
	var groups map[counter.Code]group
	for i, r := range results {
		if r.Err == nil {
			s.metrics.succeeded(plan[i].Kind, r.Replayed)
			continue
		}
		e := asProblem(r.Err)
		s.metrics.reject(e.Code)
		if groups == nil {
			groups = make(map[counter.Code]group)
		}
		g := groups[e.Code]
		if g.first == nil {
			g.first = e
		}
		g.operations++
		groups[e.Code] = g
	}
	for _, g := range groups {
		s.failures.log(c, g.first, g.operations)
	}
}

// failures returns how many operations failed, and the first's error if all that failed have its code.
func failures(results []counter.Result) (common *counter.Error, failed int) {
	same := true
	for _, r := range results {
		if r.Err == nil {
			continue
		}
		failed++
		e := asProblem(r.Err)
		if common == nil {
			common = e
		}
		same = same && e.Code == common.Code
	}
	if !same {
		return nil, failed
	}
	return common, failed
}

// answerResults answers with what became of each operation.
func answerResults(c echo.Context, status int, plan []planned, results []counter.Result) {
	buffer := getBuffer()
	defer putBuffer(buffer)

	b := buffer.bytes
	b = append(b, `{"results":[`...)
	for i, r := range results {
		if i > 0 {
			b = append(b, ',')
		}
		r.Counter.Key, r.Counter.SyncedVersion = plan[i].Key, 0
		switch {
		case r.Err != nil:
			b = appendFailed(b, plan[i].Key, asProblem(r.Err))
		case plan[i].Kind == counter.Delete:
			b = appendReplayed(appendDeleted(b, r.Counter), r.Replayed)
		default:
			b = appendReplayed(appendCounter(b, r.Counter), r.Replayed)
		}
	}
	b = append(b, `]}`...)
	buffer.bytes = b
	write(c, status, jsonType, b)
}
