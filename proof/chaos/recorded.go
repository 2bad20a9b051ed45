package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/proof/world"
)

// With -history every operation of every counter is recorded in the table operations. The checks here read that table with SQL of their
// own. At the end the records of each counter must have every version once and lead to its row, every acknowledged write must have its
// record, and no other write may have one.

const (
	// writesKept bounds the writes of a run with -history. Each takes 24 bytes until the end.
	writesKept = 5_000_000
	// latestRecords is the number of records that are read at once under load.
	latestRecords = 1000
	// busyKeys is the number of keys whose records are read most often under load.
	busyKeys = 8
)

// write is a write and its outcome, in few bytes.
type write struct {
	number  uint32 // of its request; 0 over the Redis protocol
	version uint32 // in the answer; 0 if there was none
	value   int64  // in the answer, if there was a version
	amount  int32
	kind    stepKind
	outcome outcome
}

func newWrite(s step, number uint32, a answer) write {
	w := write{number: number, amount: int32(s.amount), kind: s.kind, outcome: a.outcome} //nolint:gosec // at most a million
	if a.outcome == acknowledged && a.reading != nil && a.reading.version != unversioned {
		w.version, w.value = uint32(a.reading.version), a.reading.value //nolint:gosec // at most writesKept
	}
	return w
}

// writes are all writes of a counter, in the order of their answers.
type writes []write

// same says which writes the records cannot tell apart: with a number only the equal ones in a request.
type same struct {
	number uint32
	amount int32
	kind   stepKind
}

// tellable counts the writes, and the records, that cannot be told apart.
type tellable struct{ acknowledged, indeterminate, refused, records int }

// compare requires that the acknowledged writes have their records, and that no other record exists, except of writes with an unknown
// outcome. The records have the numbers of the requests if numbered.
func (w writes) compare(records []world.Record, numbered bool) world.RecordProblem {
	counts := make(map[same]*tellable)
	of := func(s same) *tellable {
		if counts[s] == nil {
			counts[s] = new(tellable)
		}
		return counts[s]
	}
	for _, one := range w {
		c := of(same{one.number, one.amount, one.kind})
		switch one.outcome {
		case acknowledged:
			c.acknowledged++
		case refused:
			c.refused++
		case indeterminate:
			c.indeterminate++
		}
	}
	for _, r := range records {
		s, problem := identify(r, numbered)
		if problem != (world.RecordProblem{}) {
			return problem
		}
		c := of(s)
		if c.records++; c.records > c.acknowledged+c.indeterminate {
			return world.RecordSurplus.Problemf(
				"version %d, %s %+d of request %q: %d records, but %d acknowledged and %d indeterminate writes; %d were refused",
				r.Version, r.Operation, s.amount, r.Request, c.records, c.acknowledged, c.indeterminate, c.refused)
		}
	}
	for s, c := range counts {
		if c.records < c.acknowledged {
			return world.RecordMissing.Problemf("%s %+d of request %q: %d records, but %d acknowledged writes", s.kind.name(), s.amount,
				requestID(s.number), c.records, c.acknowledged)
		}
	}
	return world.RecordProblem{}
}

// identify returns the writes that a record may belong to.
func identify(r world.Record, numbered bool) (same, world.RecordProblem) {
	s := same{amount: int32(r.Amount.Int64)} //nolint:gosec // another amount than those that were sent is found by the replay
	for _, kind := range []stepKind{stepSet, stepIncrement, stepDelete} {
		if kind.name() == r.Operation {
			s.kind = kind
		}
	}
	if !numbered {
		return s, world.RecordProblem{}
	}
	if _, err := fmt.Sscanf(r.Request, "chaos-%d", &s.number); err != nil || requestID(s.number) != r.Request {
		return s, world.RecordSurplus.Problemf("version %d has the request %q, which no client sent", r.Version, r.Request)
	}
	return s, world.RecordProblem{}
}

// atVersions requires that the record of each version that was answered belongs to that write. The records must have all versions from 1.
func (w writes) atVersions(records []world.Record, numbered bool) world.RecordProblem {
	for _, one := range w {
		switch {
		case one.version == 0:
			continue
		case int(one.version) > len(records):
			return world.RecordMissing.Problemf("version %d was answered, but there are %d records", one.version, len(records))
		}
		r := records[one.version-1]
		s, problem := identify(r, numbered)
		if problem != (world.RecordProblem{}) {
			return problem
		}
		if s != (same{one.number, one.amount, one.kind}) || r.Value.Int64 != one.value {
			return world.RecordWrong.Problemf("version %d was answered to %s %+d of request %q with value %d, but is recorded for %s %+d "+
				"of %q with value %d", one.version, one.kind.name(), one.amount, requestID(one.number), one.value, r.Operation, s.amount,
				r.Request, r.Value.Int64)
		}
	}
	return world.RecordProblem{}
}

// check checks the records of a counter that continues from start.
func (w writes) check(start int64, r world.Recorded, numbered, weak bool) world.RecordProblem {
	from := world.State{Value: start, Deleted: start == 0}
	if r.Row.Version == 0 {
		r.Row = from
	}
	if problem := world.Replay(from, r.Records, r.Row); problem != (world.RecordProblem{}) {
		return problem
	}
	if problem := w.compare(r.Records, numbered); problem != (world.RecordProblem{}) || weak {
		return problem // a promoted replica may answer with versions that the flush has to renumber, because Postgres has them already
	}
	return w.atVersions(r.Records, numbered)
}

// checkRecords checks the records of all counters, and runs the check of the program itself.
func (v *verifier) checkRecords(ctx context.Context, result *verdict) error {
	result.misrecorded = newTally()
	numbered := v.client == client(v.http)
	check := func(n name, sent writes, r world.Recorded, events func() []string) {
		result.records += int64(len(r.Records))
		if problem := sent.check(n.start, r, numbered, v.ledger.weak); problem != (world.RecordProblem{}) {
			result.misrecorded.add(string(problem.Class))
			v.ledger.findings.add(n.key, fmt.Sprintf("at the end its records are wrong (%s): %s", problem.Class, problem.Detail), events())
		}
	}
	unseen := make(map[string]func(world.Recorded))
	for _, a := range v.ledger.all() {
		unseen[a.key] = func(r world.Recorded) { check(a.name, a.sent, r, a.events) }
	}
	for _, o := range v.owners {
		unseen[o.key] = func(r world.Recorded) { check(o.name, o.sent, r, o.history.lines) }
	}
	err := v.Records(ctx, func(r world.Recorded) {
		checkOne := unseen[r.Key]
		if checkOne == nil {
			v.ledger.findings.add(r.Key, fmt.Sprintf("it has %d records, but no client wrote this key", len(r.Records)), nil)
			return
		}
		delete(unseen, r.Key)
		checkOne(r)
	})
	if err != nil {
		return err
	}
	for _, checkOne := range unseen {
		checkOne(world.Recorded{})
	}
	return v.runVerify(ctx)
}

// runVerify requires that the program finds no difference either. With a topology it drops entries that are older than their rows; see
// checkEntries. It never repairs a history.
func (v *verifier) runVerify(ctx context.Context) error {
	out, err := v.Output(ctx, "verify", "--history", "--rate", "0", "--repair="+strconv.FormatBool(v.ledger.weak))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.ledger.findings.add("(all)", fmt.Sprintf("afterwrite verify --history: %v", err), strings.Split(out, "\n"))
	}
	return nil
}

// watchRecords checks the latest records of one key under load: of a busy one, or of all in turn.
func (v *verifier) watchRecords(ctx context.Context, all []name) {
	n := all[v.recordReads/2%len(all)]
	if v.recordReads%2 == 0 {
		n = all[v.recordReads/2%min(busyKeys, len(all))]
	}
	latest, err := v.Latest(ctx, n.key, latestRecords)
	if err != nil {
		return // Postgres is down
	}
	v.recordReads++
	if problem := checkLatest(n.start, latest); problem != (world.RecordProblem{}) {
		v.ledger.findings.add(n.key, fmt.Sprintf("under load its records are wrong (%s): %s", problem.Class, problem.Detail), nil)
	}
}

// checkLatest checks the latest records of a counter that continues from start.
func checkLatest(start int64, latest world.Recorded) world.RecordProblem {
	from := world.State{Value: start, Deleted: start == 0}
	switch {
	case latest.Row.Version == 0:
		latest.Row = from
	case len(latest.Records) == latestRecords:
		from = world.State{Version: latest.Records[0].Version - 1, Unknown: true}
	}
	return world.Replay(from, latest.Records, latest.Row)
}
