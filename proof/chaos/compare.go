package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// entries reads the keys' entries from Redis. It does not use the API, which would return the row of an evicted key. Keys without an
// entry are left out.
func (v *verifier) entries(ctx context.Context) (map[string]row, error) {
	found := make(map[string]row)
	pipe := v.Redis.Pipeline()
	replies := make(map[string]*redis.StringCmd)
	flush := func() error {
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("read the entries: %w", err)
		}
		for key, reply := range replies {
			if entry, ok := decodeEntry(reply.Val()); ok {
				found[key] = entry
			}
		}
		clear(replies)
		return nil
	}
	for key := range v.events() {
		name := "{aw:" + counter.Key(key).Shard(shards).String() + "}:c:" + key
		replies[key] = pipe.Get(ctx, name)
		if len(replies) == readBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	return found, flush()
}

// decodeEntry parses the value, the version, and the flags x (deleted) and h (it has a history) after the epoch (see
// internal/cache/entry.lua). It returns false if there is no entry. An entry that is set aside or has an unknown base must not occur here,
// so its row is one that matches no other.
func decodeEntry(text string) (row, bool) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return row{}, false
	}
	unequal := row{reading: reading{value: -1, version: -1}}
	if len(fields) < 3 {
		return unequal, true
	}
	_, flags, _ := strings.Cut(fields[2], ":")
	deleted := strings.Contains(flags, "x")
	if strings.Trim(flags, "xh") != "" {
		return unequal, true
	}
	value, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return unequal, true
	}
	version, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return unequal, true
	}
	return row{reading: reading{value: value, version: version}, deleted: deleted}, true
}

// checkEntries compares Redis with Postgres. No key may be dirty. With a topology, an entry may be older than its row: a replica that was
// promoted may lack a write that was not acknowledged, but flushed. An api does not answer with such an entry; see checkAnswers.
func (v *verifier) checkEntries(rows, entries map[string]row, result *verdict) {
	for key, events := range v.events() {
		entry, warm := entries[key]
		has := rows[key] // Redis caches a missing row as deleted
		expected := entry == has || (v.ledger.weak && entry.version < has.version)
		if warm && !expected {
			result.unequal++
			v.ledger.findings.add(key, fmt.Sprintf("at the end redis has %+v, but postgres has %+v", entry, has), events())
		}
	}
}

// checkAnswers reads about apiReads keys through the apis, over HTTP and the protocol of the load, and compares the answers with the rows.
func (v *verifier) checkAnswers(ctx context.Context, rows map[string]row, result *verdict) {
	every, i := max(1, result.keys/apiReads), 0
	for key, events := range v.events() {
		i++
		if i%every != 0 {
			continue
		}
		has, found := rows[key]
		found = found && !has.deleted
		for _, c := range []client{v.http, v.client} {
			a := v.get(ctx, c, i%copies, key)
			if ctx.Err() != nil {
				return // the run was not completed
			}
			if a.missing && !found || found && a.shows(has.reading) {
				continue
			}
			result.unequal++
			v.ledger.findings.add(key, fmt.Sprintf("at the end the api answers %s, but postgres has value %d, version %d, live: %t",
				a, has.value, has.version, found), events())
		}
	}
}

// shows reports whether an answer has the state of a row. Over the Redis protocol it has only the value.
func (a answer) shows(r reading) bool {
	if a.reading == nil || a.reading.version == unversioned {
		return a.reading != nil && a.reading.value == r.value
	}
	return *a.reading == r && a.synced
}

// get reads a key. It retries while the api's breaker is open after an outage of Postgres.
func (v *verifier) get(ctx context.Context, c client, api int, key string) answer {
	for {
		a := c.do(ctx, api, request{steps: []keyed{{step{kind: stepGet}, key}}})
		if a.reading != nil || a.missing || !pause(ctx, checkEvery) {
			return a
		}
	}
}
