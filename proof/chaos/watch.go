package main

import (
	"context"
	"time"
)

// watchEvery is the time between two looks at the rows: short enough to see most states that a row of a busy key has.
const watchEvery = 150 * time.Millisecond

// watchKeys is how many rows may be read so often without being much of the load themselves.
const watchKeys = 5000

// watch looks at the rows in Postgres again and again while the load goes on, until ctx ends: what was wrong for a moment
// only, and was then flushed over, does not show at the end. While Postgres is down there is nothing to see.
func (v *verifier) watch(ctx context.Context) {
	byKey := make(map[string]*account, len(v.ledger.accounts))
	for _, a := range v.ledger.accounts {
		byKey[a.key] = a
	}
	every := watchEvery * time.Duration(1+len(byKey)/watchKeys)
	for pause(ctx, every) {
		rows, err := v.rows(ctx)
		if err != nil {
			continue
		}
		v.looks++
		for key, has := range rows {
			a := byKey[key]
			if a == nil {
				continue
			}
			if problem := a.look(has.reading); problem != "" {
				v.ledger.findings.add(key, "postgres has "+problem, a.events())
			}
		}
	}
}
