package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	cleanPatience = 60 * time.Second
	verifyTimeout = 2 * time.Minute
	// apiReads is the approximate number of keys that are also read through the apis at the end.
	apiReads = 1000
	// readBatch is the number of entries read in one round trip.
	readBatch = 1000
)

// row is a row of the table counters.
type row struct {
	reading

	deleted bool
}

// verdict is the result of the checks at the end of a run.
type verdict struct {
	checked  bool          // the checks ran to the end
	drain    time.Duration // time until no key was dirty, after all processes were ready
	backlog  cache.Backlog // the backlog after that time
	archived int64         // archived tasks
	keys     int
	warm     int   // keys that are also in Redis
	lost     int64 // acknowledged operations missing from the versions
	doubled  int64 // operations in the versions beyond the possible ones
	wrong    int64 // keys with a possible version but an impossible value
	unequal  int64 // keys with different states in Redis or an api and in Postgres

	columns  int   // columns of keys
	starts   int   // columns with a value before the run
	adopted  int64 // the sum of these values, without the keys of owners
	disagree int64 // columns that differ from the row of their counter

	records     int64  // with -history
	misrecorded *tally // keys whose records are wrong, by class

	acked    sums   // acknowledged increments of all keys
	possible bounds // the sum of the bounds of all keys
	value    int64  // the sum of the values in Postgres
}

// verifier compares the ledger, Redis and Postgres. verify runs after the load, watch during it.
type verifier struct {
	*rig

	ledger *ledger
	client client
	http   *httpClient // the same client, unless the load uses the Redis protocol
	owners []*owner

	rowReads    int // number of reads of all rows under load
	recordReads int // number of reads of a key's records under load
}

// verify waits until no key is dirty, and then checks every key. It adds violations to the findings.
func (v *verifier) verify(ctx context.Context) (verdict, error) {
	var result verdict
	var err error
	if result.drain, result.backlog, err = v.awaitClean(ctx); err != nil {
		return result, err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	if result.archived, err = v.Archived(ctx); err != nil {
		return result, err
	} else if result.archived > 0 {
		v.ledger.findings.add(targetAsynq, fmt.Sprintf("%d tasks are archived", result.archived), nil)
	}
	s, err := v.state(ctx)
	if err != nil {
		return result, err
	}
	v.checkColumns(s, &result)
	rows := s.rows
	v.addUnwritten(rows)
	v.checkRows(rows, &result)
	entries, err := v.entries(ctx)
	if err != nil {
		return result, err
	}
	result.warm = len(entries)
	v.checkEntries(rows, entries, &result)
	v.checkAnswers(ctx, rows, &result)
	if v.ledger.recorded {
		if err := v.checkRecords(ctx, &result); err != nil {
			return result, err
		}
	}
	result.checked = ctx.Err() == nil
	return result, ctx.Err()
}

// checkRows compares the rows with the ledger.
func (v *verifier) checkRows(rows map[string]row, result *verdict) {
	for _, a := range v.ledger.all() {
		v.checkAccount(a, rows[a.key], result)
	}
	for _, o := range v.owners {
		v.checkOwner(o, rows[o.key], result)
	}
	result.keys = len(v.ledger.all()) + len(v.owners)
	known := make(map[string]bool, result.keys)
	for key := range v.events() {
		known[key] = true
	}
	for key := range rows {
		if !known[key] {
			v.ledger.findings.add(key, "postgres has a row, but no client wrote this key", nil)
		}
	}
}

// events iterates over all keys. It yields a function that returns the key's last events.
func (v *verifier) events() iter.Seq2[string, func() []string] {
	return func(yield func(string, func() []string) bool) {
		for _, a := range v.ledger.all() {
			if !yield(a.key, a.events) {
				return
			}
		}
		for _, o := range v.owners {
			if !yield(o.key, o.history.lines) {
				return
			}
		}
	}
}

// awaitClean waits until no key is dirty, and returns the waiting time. A timeout is a violation; the checks continue.
func (v *verifier) awaitClean(ctx context.Context) (time.Duration, cache.Backlog, error) {
	took, backlog, err := v.Clean(ctx, cleanPatience)
	if ctx.Err() != nil {
		return 0, backlog, ctx.Err()
	}
	if backlog.Dead > 0 {
		v.ledger.findings.add("(all)", fmt.Sprintf("%d keys are dead", backlog.Dead), nil)
	}
	if err != nil {
		v.ledger.findings.add("(all)", err.Error(), nil)
	}
	return took, backlog, nil
}

// burned returns the number of failed attempts of all tasks, as counted by Asynq.
func (r *rig) burned(ctx context.Context) (int64, error) {
	var sum int64
	for _, queue := range tasks.QueuesIn(r.Redis, "").Names() {
		n, err := r.Redis.Get(ctx, "asynq:{"+queue+"}:failed").Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, fmt.Errorf("count failed attempts: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// state is what Postgres has at one time.
type state struct {
	rows    map[string]row
	columns map[string]int64 // the mapped columns that exist, by key
}

func (r *rig) state(ctx context.Context) (*state, error) {
	found, err := r.DB.QueryContext(ctx, rowsSQL)
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	defer found.Close()
	s := &state{rows: make(map[string]row), columns: make(map[string]int64)}
	for found.Next() {
		var key string
		var has row
		var isRow, isColumn bool
		var column int64
		if err := found.Scan(&key, &isRow, &has.value, &has.version, &has.deleted, &isColumn, &column); err != nil {
			return nil, fmt.Errorf("read the rows: %w", err)
		}
		if isRow {
			s.rows[key] = has
		}
		if isColumn {
			s.columns[key] = column
		}
	}
	return s, found.Err()
}

// checkColumns compares the columns with the rows.
func (v *verifier) checkColumns(s *state, result *verdict) {
	check := func(n name, events func() []string) {
		if n.lands == nowhere {
			return
		}
		result.columns++
		if n.start != 0 {
			result.starts++
		}
		if problem := n.disagrees(s); problem != "" {
			result.disagree++
			v.ledger.findings.add(n.key, "at the end "+problem, events())
		}
	}
	for _, a := range v.ledger.all() {
		check(a.name, a.events)
		result.adopted += a.start
	}
	for _, o := range v.owners {
		check(o.name, o.history.lines)
	}
}

// addUnwritten adds the rows of counters that no client has written: they have the values of their columns.
func (v *verifier) addUnwritten(rows map[string]row) {
	for _, n := range names(v.ledger, v.owners) {
		if _, found := rows[n.key]; !found {
			rows[n.key] = row{reading: reading{value: n.start}, deleted: n.start == 0}
		}
	}
}

func (v *verifier) checkAccount(a *account, has row, result *verdict) {
	b, acked := a.final()
	lost, doubled := max(0, b.low.version-has.version), max(0, has.version-b.high.version)
	problem := b.check(has.reading)
	if problem == "" {
		problem = a.checkRow(has.reading)
	}
	v.note(a.key, problem, lost, doubled, a.events, result)
	result.acked = result.acked.and(acked)
	result.possible = result.possible.and(b)
	result.value += has.value
}

// checkOwner checks a key that has a client of its own. If a loose operation was applied, it compares only versions.
func (v *verifier) checkOwner(o *owner, has row, result *verdict) {
	lost, doubled := max(0, o.sequence.least-has.version), max(0, has.version-o.sequence.least-o.sequence.loose)
	problem := o.sequence.compare(has.reading)
	if problem == "" && o.sequence.certain() && has.version > 0 && has.deleted == o.sequence.exists {
		problem = fmt.Sprintf("deleted: %t, but deleted: %t is expected", has.deleted, !o.sequence.exists)
	}
	v.note(o.key, problem, lost, doubled, o.history.lines, result)
}

// note adds a problem of a row to the findings, and counts it.
func (v *verifier) note(key, problem string, lost, doubled int64, events func() []string, result *verdict) {
	if problem != "" {
		v.ledger.findings.add(key, "at the end, postgres has "+problem, events())
		if lost+doubled == 0 {
			result.wrong++
		}
	}
	result.lost += lost
	result.doubled += doubled
}

// watchEvery is the pause between two reads of all rows, short enough to catch most states of a busy row.
const watchEvery = 150 * time.Millisecond

// watchKeys is the number of rows that watchEvery suits. More rows lengthen the pause, to limit the load.
const watchKeys = 5000

// watch reads all rows and columns repeatedly under load until ctx is done, because a wrong row may be overwritten before the end. While
// Postgres is down it reads nothing.
func (v *verifier) watch(ctx context.Context) {
	byKey := make(map[string]*account, len(v.ledger.accounts))
	for _, a := range v.ledger.all() {
		byKey[a.key] = a
	}
	every := watchEvery * time.Duration(1+len(byKey)/watchKeys)
	all := names(v.ledger, v.owners)
	for pause(ctx, every) {
		if v.ledger.recorded {
			v.watchRecords(ctx, all)
		}
		s, err := v.state(ctx)
		if err != nil {
			continue
		}
		v.rowReads++
		for _, n := range all {
			if problem := n.disagrees(s); problem != "" {
				v.ledger.findings.add(n.key, "under load "+problem, nil)
			}
		}
		for key, has := range s.rows {
			a := byKey[key]
			if a == nil {
				continue
			}
			if problem := a.checkRow(has.reading); problem != "" {
				v.ledger.findings.add(key, "postgres has "+problem, a.events())
			}
		}
	}
}
