package resp

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// batch is the operations of consecutive commands, which go to Counters as one request, and how their results become answers.
type batch struct {
	ops     []counter.Operation
	answers []answer
	writes  bool  // an operation changes a counter
	total   int   // operations, with each increment in a sum
	sums    int   // operations that are the sum of several increments
	open    bool  // the last operation is an increment that others may be added to
	spent   int64 // the sum of its absolute amounts
}

// answer is the answer to one command.
type answer struct {
	form  form
	op, n int32 // its operations: ops[op:op+n]
	by    int64 // the amount of an increment
	sum   int64 // of the increments in its operation, up to this one
}

// form is how results become an answer.
type form uint8

const (
	formValue    form = iota // the value, or null if it is not known yet: INCRBY
	formOK                   // OK: SET
	formOKOrNull             // OK, or null if the condition was not met: SET NX
	formSet                  // 1, or 0 if the condition was not met: SETNX
	formBulk                 // the value as a string, or null: GET
	formBulks                // an array of them: MGET
	formOld                  // the value of the first of two operations as a string, or null: SET GET
	formDeleted              // how many counters existed: DEL
	formExisting             // how many counters exist: EXISTS
	formType                 // the type's name: TYPE
	formLength               // the number of characters: STRLEN
	formTTL                  // -1: it does not expire; -2: it does not exist
)

// target is the batch of the present command: that of the transaction, if there is one.
func (c *connection) target() *batch {
	if c.multi != nil {
		return &c.multi.batch
	}
	return &c.batch
}

// add appends the operations of one command. Operations of one command go to Redis in one call.
func (c *connection) add(f form, ops ...counter.Operation) {
	c.makeRoom(len(ops))
	c.identify(ops)
	b := c.target()
	b.answers = append(b.answers, answer{form: f, op: int32(len(b.ops)), n: int32(len(ops))}) //nolint:gosec // maxArguments bounds it
	b.ops = append(b.ops, ops...)
	b.total, b.open = b.total+len(ops), false
	for i := range ops {
		b.writes = b.writes || ops[i].Kind != counter.Get
	}
}

// makeRoom carries out the batch if n more operations do not fit, or would not if its sums had to be separated. In a transaction they must;
// see queue.
func (c *connection) makeRoom(n int) {
	b := c.target()
	size := len(b.ops)
	if b.sums > 0 {
		size = b.total
	}
	if c.multi == nil && size > 0 && size+n > maxOperations {
		c.flush()
	}
}

// addIncrement appends an increment without an ID and a condition. If it follows one of the same counter, it is added to that: Redis then
// applies their sum, and the answers are derived from the result. Those of a counter with a history stay single, for its records, and
// those of a transaction, which must not need a second call if the sum might overflow.
func (c *connection) addIncrement(name []byte, by int64) {
	b := c.target()
	size := by
	if size < 0 {
		size = -size // math.MinInt64 stays negative
	}
	small := size >= 0 && size <= counter.MaxCombined
	if last := len(b.ops) - 1; b.open && small && string(name) == string(b.ops[last].Key) && b.spent+size <= counter.MaxCombined {
		op := &b.ops[last]
		if op.Count == 0 {
			op.Count = 1
			b.sums++
		}
		op.Count++
		op.Amount += by
		b.spent += size
		b.total++
		b.answers = append(b.answers, answer{form: formValue, op: int32(last), n: 1, by: by, sum: op.Amount}) //nolint:gosec // as above
		return
	}
	key, ok := c.counterKey(name)
	if !ok {
		return
	}
	c.makeRoom(1)
	b.answers = append(b.answers, answer{form: formValue, op: int32(len(b.ops)), n: 1, by: by, sum: by}) //nolint:gosec // as above
	b.ops = append(b.ops, counter.Operation{Key: key, Kind: counter.Increment, Amount: by})
	b.writes, b.open, b.spent = true, small && c.multi == nil && !c.server.Recorded(key), size
	b.total++
}

// separate makes a single operation of each increment whose sum is not the only operation on its counter: nothing may be between two
// increments that are applied as one.
func (b *batch) separate() {
	if b.sums == 0 || len(b.ops) == 1 {
		return
	}
	times := make(map[counter.Key]int, len(b.ops))
	for i := range b.ops {
		times[b.ops[i].Key]++
	}
	b.divide(func(op *counter.Operation) bool { return times[op.Key] > 1 })
}

// divide makes a single operation of each increment in the sums that match.
func (b *batch) divide(match func(op *counter.Operation) bool) {
	ops := make([]counter.Operation, 0, b.total)
	sums, before := 0, int32(-1)
	for i := range b.answers {
		a := &b.answers[i]
		from := b.ops[a.op : a.op+a.n]
		switch {
		case from[0].Count > 1 && match(&from[0]):
			op := from[0]
			op.Amount, op.Count = a.by, 0
			ops = append(ops, op)
			before, a.sum = a.op, a.by
		case from[0].Count > 1 && a.op == before: // a further increment in a sum that stays
		default:
			if from[0].Count > 1 {
				sums++
			}
			before = a.op
			ops = append(ops, from...)
		}
		a.op = int32(len(ops)) - a.n //nolint:gosec // as above
	}
	b.ops, b.sums = ops, sums
}

// reset empties the batch, and keeps its memory unless it is large.
func (b *batch) reset() {
	clear(b.ops) // the keys
	*b = batch{ops: b.ops[:0], answers: b.answers[:0]}
	if cap(b.ops) > 2*maxOperations {
		b.ops = nil
	}
}

// flush carries out the commands before the present one, and appends their answers.
func (c *connection) flush() { c.flushWith(writepath.Options{}) }

// flushWith is flush with these options. It reports whether every write that was applied has the durability.
func (c *connection) flushWith(options writepath.Options) (durable bool) {
	b := &c.batch
	if c.closing { // the answers to these commands would be taken for those to commands before them
		b.reset()
	}
	if len(b.answers) == 0 {
		return true
	}
	if b.writes && options.Durability == writepath.AsConfigured {
		c.unconfirmed = true
	}
	results := c.carryOut(b, options)
	durable = true
	for i := range results {
		code := counter.CodeOf(results[i].Err)
		durable = durable && code != counter.CodeNotDurable && code != counter.CodeUnsupportedDurability
		if code == counter.CodeNotDurable && options.Durability != writepath.AsConfigured { // WAIT reports it instead
			results[i].Err = nil
		}
	}
	for i := range b.answers {
		if c.out = c.appendAnswer(c.out, b, &b.answers[i], results); c.closing {
			break
		}
		c.sendSome()
	}
	b.reset()
	return durable
}

// carryOut carries out the operations of a batch, and counts them.
func (c *connection) carryOut(b *batch, options writepath.Options) []counter.Result {
	b.separate()
	if c.limited == nil {
		_, c.limited = c.key.Take(b.total)
	}
	if c.limited != nil {
		return c.failed(b, c.limited)
	}
	ctx, end := c.span(len(b.answers), b.total)
	defer end()
	if c.origin != nil {
		for i := range b.ops {
			b.ops[i].Origin = c.origin
		}
	}
	if b.writes && options.Wait == 0 {
		defer c.server.metrics.ObserveWrite(time.Now())
	}
	results := c.server.counters.Do(ctx, b.ops, options)
	if b.sums > 0 {
		results = c.oneByOne(ctx, b, options, results)
	}
	c.countResults(ctx, b, results)
	return results
}

// failed returns the same error for all operations.
func (c *connection) failed(b *batch, err error) []counter.Result {
	results := make([]counter.Result, len(b.ops))
	for i := range results {
		results[i].Err = err
	}
	c.countResults(c.ctx, b, results)
	return results
}

// oneByOne carries out the increments of each sum that was not applied because it might overflow in between. Their results are the last
// ones. It runs when a counter is close to the largest or the smallest value.
func (c *connection) oneByOne(
	ctx context.Context, b *batch, options writepath.Options, results []counter.Result,
) []counter.Result {
	from := len(b.ops)
	for i := range b.answers {
		a := &b.answers[i]
		if counter.CodeOf(results[a.op].Err) != counter.CodeNotCombined {
			continue
		}
		op := b.ops[a.op]
		op.Amount, op.Count = a.by, 0
		a.op, a.sum = int32(len(b.ops)), a.by //nolint:gosec // maxPipeline bounds it
		b.ops = append(b.ops, op)
	}
	if len(b.ops) == from {
		return results
	}
	return append(results, c.server.counters.Do(ctx, b.ops[from:], options)...)
}

// countResults counts the operations of a batch by their results, and logs each code once.
func (c *connection) countResults(ctx context.Context, b *batch, results []counter.Result) {
	m := c.server.metrics
	var kind counter.Kind
	n := 0
	for i := range results {
		r, op := &results[i], &b.ops[i]
		if r.Err != nil || r.Replayed {
			c.countResult(ctx, op, r)
			continue
		}
		if op.Kind != kind { // one addition for consecutive operations of a kind
			m.CountSuccess(kind, n, false)
			kind, n = op.Kind, 0
		}
		n += op.Increments()
	}
	m.CountSuccess(kind, n, false)
}

// countResult counts an operation that failed or was replayed.
func (c *connection) countResult(ctx context.Context, op *counter.Operation, r *counter.Result) {
	if r.Err == nil {
		c.server.metrics.CountSuccess(op.Kind, 1, true)
		return
	}
	e := known(r.Err)
	if e.Code == counter.CodeNotCombined || e.Code == counter.CodeVersionMismatch {
		return // sent again; the answer to SET NX, which is no error here
	}
	c.server.metrics.Reject(e.Code, op.Increments())
	c.server.logFailure(ctx, c, e, op.Increments())
}

// appendAnswer appends the answer to one command. After an outcome that is not known it ends the connection.
func (c *connection) appendAnswer(out []byte, b *batch, a *answer, results []counter.Result) []byte {
	own := results[a.op : a.op+a.n]
	for i := range own {
		if err := own[i].Err; err != nil && !a.form.expects(err) {
			return c.appendFailure(out, explain(worst(own), b.writes))
		}
	}
	first := &own[0]
	switch a.form {
	case formValue:
		return c.appendValue(out, first, &b.ops[a.op], a)
	case formOK, formOKOrNull, formSet:
		return c.appendSet(out, a.form, first.Err == nil)
	case formBulk, formOld:
		return c.appendCounter(out, first)
	case formBulks:
		out = appendArray(out, len(own))
		for i := range own {
			out = c.appendCounter(out, &own[i])
		}
	case formDeleted, formExisting:
		n := int64(0)
		for i := range own {
			if own[i].Existed || own[i].Counter.Exists {
				n++
			}
		}
		out = appendInt(out, n)
	case formType, formLength, formTTL:
		return appendFact(out, a.form, first.Counter)
	}
	return out
}

// appendValue appends the value after an increment, which may be one of several in its operation. An increment of an unknown base is
// answered with null: it was applied, and an error would invite the client to repeat it.
func (c *connection) appendValue(out []byte, r *counter.Result, op *counter.Operation, a *answer) []byte {
	if !r.Counter.Known {
		return c.appendNull(out)
	}
	value := r.Counter.Value
	if op.Count > 1 {
		value += a.sum - op.Amount
	}
	return appendInt(out, value)
}

// appendSet appends the answer to SET and SETNX.
func (c *connection) appendSet(out []byte, f form, done bool) []byte {
	switch {
	case f == formSet && done:
		return appendInt(out, 1)
	case f == formSet:
		return appendInt(out, 0)
	case done:
		return appendOK(out)
	}
	return c.appendNull(out)
}

// expects reports whether an error is an answer of the form: a condition that was not met.
func (f form) expects(err error) bool {
	return (f == formOKOrNull || f == formSet || f == formOld) && counter.CodeOf(err) == counter.CodeVersionMismatch
}

// explain returns the error for the client. If its request only reads, an answer that was lost leaves nothing unknown.
func explain(err error, writes bool) error {
	if writes || counter.CodeOf(err) != counter.CodeOutcomeUnknown {
		return err
	}
	return &counter.Error{Code: counter.CodeCacheUnavailable, Err: err, Detail: "Redis did not answer"}
}

// worst returns the error of a command with several operations: an unknown outcome, or else the first.
func worst(results []counter.Result) error {
	var first error
	for i := range results {
		err := results[i].Err
		if counter.CodeOf(err) == counter.CodeOutcomeUnknown {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// appendCounter appends the value of a counter as a string, or null if there is none.
func (c *connection) appendCounter(out []byte, r *counter.Result) []byte {
	if !r.Counter.Exists {
		return c.appendNull(out)
	}
	return appendBulkInt(out, r.Counter.Value)
}

// appendFact appends what TYPE, STRLEN and TTL say about a counter.
func appendFact(out []byte, f form, value counter.Counter) []byte {
	switch {
	case f == formType && value.Exists:
		return appendSimple(out, "string")
	case f == formType:
		return appendSimple(out, "none")
	case f == formTTL && value.Exists:
		return appendInt(out, -1)
	case f == formTTL:
		return appendInt(out, -2)
	case !value.Exists:
		return appendInt(out, 0)
	}
	return appendInt(out, int64(len(decimal(value.Value))))
}
