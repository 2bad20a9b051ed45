package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/afterwrite/afterwrite/tasks"
)

const (
	cleanPatience = 60 * time.Second
	verifyTimeout = 30 * time.Second
)

// row is what Postgres has of a key.
type row struct {
	reading

	deleted bool
}

// verdict is what the end of a run has shown.
type verdict struct {
	drain   time.Duration // from everything started again to nothing dirty
	lost    int64         // acknowledged operations that are not in a key's version
	doubled int64         // operations in versions beyond all that can have been applied
}

// verifier compares the ledger, Redis and Postgres when nothing is written any more.
type verifier struct {
	*world

	ledger *ledger
	client *client
	owners []*owner
}

// verify waits until nothing is dirty, and then checks every key. What is wrong goes to the findings.
func (v *verifier) verify(ctx context.Context) (verdict, error) {
	var result verdict
	var err error
	if result.drain, err = v.awaitClean(ctx); err != nil {
		return result, err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	if n, err := v.archived(ctx); err != nil {
		return result, err
	} else if n > 0 {
		v.ledger.findings.add(targetAsynq, fmt.Sprintf("%d tasks are archived", n), nil)
	}
	rows, err := v.rows(ctx)
	if err != nil {
		return result, err
	}
	for i, a := range v.ledger.accounts {
		v.checkAccount(ctx, i%copies, a, rows, &result)
	}
	for i, o := range v.owners {
		v.checkOwner(ctx, i%copies, o, rows)
	}
	return result, nil
}

// awaitClean reports how long it took. When it takes too long that is a violation, and the checks go on.
func (v *verifier) awaitClean(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for {
		backlog, err := v.cache.Backlog(ctx)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err == nil && backlog.Dead > 0:
			v.ledger.findings.add("(all)", fmt.Sprintf("%d keys are dead", backlog.Dead), nil)
			return time.Since(began), nil
		case err == nil && backlog.Dirty == 0:
			return time.Since(began), nil
		case time.Since(began) > cleanPatience:
			v.ledger.findings.add("(all)", fmt.Sprintf("after %v there still is a backlog: %+v (error: %v)",
				cleanPatience, backlog, err), nil)
			return time.Since(began), nil
		}
		pause(ctx, lookEvery)
	}
}

// archived counts the tasks that Asynq has given up.
func (w *world) archived(ctx context.Context) (int64, error) {
	var sum int64
	for queue := range tasks.Queues() {
		n, err := w.redisClient.ZCard(ctx, "asynq:{"+queue+"}:archived").Result()
		if err != nil {
			return 0, fmt.Errorf("count archived tasks: %w", err)
		}
		sum += n
	}
	return sum, nil
}

func (w *world) rows(ctx context.Context) (map[string]row, error) {
	found, err := w.db.QueryContext(ctx, `SELECT key, value, version, deleted_at IS NOT NULL FROM counters`)
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	defer found.Close()
	rows := make(map[string]row)
	for found.Next() {
		var key string
		var r row
		if err := found.Scan(&key, &r.value, &r.version, &r.deleted); err != nil {
			return nil, fmt.Errorf("read the rows: %w", err)
		}
		rows[key] = r
	}
	return rows, found.Err()
}

func (v *verifier) checkAccount(ctx context.Context, api int, a *account, rows map[string]row, result *verdict) {
	b, has := a.final(), rows[a.key] // no row: value 0, version 0
	result.lost += max(0, b.low.version-has.version)
	result.doubled += max(0, has.version-b.high.version)
	if problem := b.check(has.reading); problem != "" {
		v.ledger.findings.add(a.key, "at the end, postgres has "+problem, a.events())
	}
	v.compare(ctx, api, a.key, rows, a.events)
}

// checkOwner checks a key that one client has written. Where something loose has landed, only versions can be compared.
func (v *verifier) checkOwner(ctx context.Context, api int, o *owner, rows map[string]row) {
	has := rows[o.key]
	problem := o.sequence.compare(has.reading)
	if problem == "" && o.sequence.certain() && has.version > 0 && has.deleted == o.sequence.exists {
		problem = fmt.Sprintf("deleted %t, but it exists: %t", has.deleted, o.sequence.exists)
	}
	if problem != "" {
		v.ledger.findings.add(o.key, "at the end, postgres has "+problem, o.history.lines())
	}
	v.compare(ctx, api, o.key, rows, o.history.lines)
}

// compare reads a key through an api, which goes by Redis, and holds it against the row.
func (v *verifier) compare(ctx context.Context, api int, key string, rows map[string]row, events func() []string) {
	a := v.get(ctx, api, key)
	has, found := rows[key]
	found = found && !has.deleted
	switch {
	case a.missing && !found:
		return
	case a.reading != nil && found && *a.reading == has.reading && a.synced:
		return
	}
	v.ledger.findings.add(key, fmt.Sprintf("at the end the api answers %s, and postgres has value %d, version %d, a live row: %t",
		a, has.value, has.version, found), events())
}

// get reads a key. An api whose breaker is still open after the last death of Postgres refuses at first.
func (v *verifier) get(ctx context.Context, api int, key string) answer {
	for {
		a := v.client.do(ctx, api, request{method: http.MethodGet, path: counterPath(key)})
		if a.reading != nil || a.missing || !pause(ctx, lookEvery) {
			return a
		}
	}
}
