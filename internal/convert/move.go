package convert

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

var (
	//go:embed convert.lua
	convertSource string
	convertScript = cache.NewScript(convertSource)
)

// pair is the old and the new shard of keys.
type pair struct{ from, to counter.Shard }

// found is the state of a key in layout 2.
type found struct {
	key   counter.Key
	text  string // "": there is no string
	alien bool   // the entry's Redis key has another type
	ttl   time.Duration
	score *float64
	note  string // of a dead letter
}

// placed is the state of a key in layout 3.
type placed struct {
	entry   string // see BECOMES in convert.lua
	ttl     int64  // ms
	mark    string // see MARK in convert.lua
	since   int64  // when a key of the open epoch became dirty, ms
	lineage int64  // the highest lineage of the entry
	note    string
	change  bool // the key must be converted
}

// asItIs is the entry of a key that is moved without translation.
const asItIs = "!"

// The marks that are not the time of a retry.
const (
	markClean = "clean"
	markOpen  = "open"
	markDead  = "dead"
)

// move converts up to pageSize keys of one pair of shards, and returns how many it changed.
func (c *converter) move(ctx context.Context, p pair, keys []counter.Key) (changed int, err error) {
	if err := c.renew(ctx); err != nil {
		return 0, err
	}
	page, now, err := c.read(ctx, p, keys)
	if err != nil {
		return 0, fmt.Errorf("read %d keys of shard %s of layout 2: %w", len(keys), p.from, err)
	}
	m := moving{shards: p, token: c.token}
	for i := range page {
		if to := place(&page[i], p, c.open[p.to], now); to.change {
			m.add(page[i], to)
		}
	}
	if len(m.to) == 0 {
		return 0, nil
	}
	done, err := c.send(ctx, &m)
	if err != nil {
		return 0, fmt.Errorf("convert %d keys of shard %s: %w", len(m.to), p.from, err)
	}
	return done, nil
}

// read reads the states of keys in layout 2, and Redis's clock in ms, in one round trip.
func (c *converter) read(ctx context.Context, p pair, keys []counter.Key) ([]found, int64, error) {
	pipe := c.Redis.Pipeline()
	names, members := make([]string, len(keys)), make([]string, len(keys))
	ttls := make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		names[i], members[i] = entryKey(p.from, key), string(key)
		ttls[i] = pipe.PTTL(ctx, names[i])
	}
	texts := pipe.MGet(ctx, names...)
	scores := pipe.Do(ctx, append([]any{"ZMSCORE", dirtyKey(p.from)}, anys(members)...)...)
	notes := pipe.HMGet(ctx, deadKey(p.from), members...)
	clock := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, 0, err
	}
	marks, err := scores.Slice()
	if err != nil {
		return nil, 0, err
	}
	page := make([]found, len(keys))
	for i, key := range keys {
		f := found{key: key, ttl: ttls[i].Val()}
		f.text, _ = texts.Val()[i].(string)
		f.note, _ = notes.Val()[i].(string)
		const absent = -2 // PTTL's reply for a missing key
		f.alien = texts.Val()[i] == nil && f.ttl != absent
		if f.score, err = parseScore(marks[i]); err != nil {
			return nil, 0, err
		}
		page[i] = f
	}
	return page, clock.Val().UnixMilli(), nil
}

// parseScore reads an element of ZMSCORE's reply, whose type depends on the protocol.
func parseScore(reply any) (*float64, error) {
	switch score := reply.(type) {
	case nil:
		return nil, nil //nolint:nilnil // nil is: it has none
	case float64:
		return &score, nil
	case string:
		number, err := strconv.ParseFloat(score, 64)
		return &number, err
	default:
		return nil, fmt.Errorf("a score of type %T", reply)
	}
}

// place returns the state of a key in layout 3, for the open epoch of its new shard.
func place(f *found, p pair, open string, now int64) placed {
	s := readScore(f.score, now)
	if f.text != "" && p.from == p.to && isLayout3(f.text) { // an earlier run has converted it
		return placed{mark: markOpen, since: now, change: s.dirty}
	}
	e, ok := parseEntry2(f.text)
	to := f.mark(s, ok && e.dirty(), now)
	inPlace := p.from == p.to && !s.dirty // if there is no entry to translate, nothing changes
	switch {
	case !ok && f.exists():
		to.entry, to.change = asItIs, !inPlace
	case !ok:
		to.change = to.mark != markClean && !inPlace
	case to.mark != markClean:
		to.entry, to.lineage, to.change = e.unsynced(open, to.mark != markOpen), e.lastLineage(), true
	default:
		to.entry, to.change = e.clean(), true
		if f.ttl >= 0 {
			to.ttl = max(1, f.ttl.Milliseconds())
		}
	}
	return to
}

// exists reports whether the entry's Redis key exists.
func (f *found) exists() bool { return f.text != "" || f.alien }

// mark returns whether the key is clean, in the open epoch, or set aside. unsynced reports whether its entry has unsynced writes.
func (f *found) mark(s score2, unsynced bool, now int64) placed {
	dead := s.dead || (!s.dirty && f.note != "")
	switch {
	case dead && f.note == "":
		return placed{mark: markDead, note: lostNote(now)}
	case dead:
		return placed{mark: markDead, note: f.note}
	case s.waits && f.exists():
		return placed{mark: strconv.FormatInt(s.ms, 10)}
	case s.waits: // the entry is missing; a flush handles that
		return placed{mark: markOpen, since: now}
	case s.dirty:
		return placed{mark: markOpen, since: s.ms}
	case unsynced: // its mark was removed by hand
		return placed{mark: markOpen, since: now}
	default:
		return placed{mark: markClean}
	}
}

// lostNote returns a note for a dead key without one, in the format of cache.Dead.
func lostNote(now int64) string {
	return fmt.Sprintf(`{"reason":"(its note was lost before the conversion to layout 3)","since":%q,"attempts":0}`,
		time.UnixMilli(now).UTC().Format(time.RFC3339))
}

// moving is a page of keys to be written.
type moving struct {
	shards pair

	token    string
	to       []placed
	old, new []string
	since    int64 // of the oldest; 0: none is open
	lineage  int64
	args     []any
}

func (m *moving) add(f found, to placed) {
	m.to = append(m.to, to)
	m.old = append(m.old, entryKey(m.shards.from, f.key))
	m.new = append(m.new, entryKey(m.shards.to, f.key))
	if to.mark == markOpen && (m.since == 0 || to.since < m.since) {
		m.since = to.since
	}
	m.lineage = max(m.lineage, to.lineage)
	score := ""
	if f.score != nil {
		score = strconv.FormatFloat(*f.score, 'f', -1, 64)
	}
	m.args = append(m.args, string(f.key), f.text, score, f.note, to.entry, to.ttl, to.mark, to.note)
}

// run calls convert.lua.
func (m *moving) run(ctx context.Context, client redis.UniversalClient, what string) (string, error) {
	var keys []string
	if what != "drop" {
		keys = append(keys, metaKey(m.shards.to), openKey(m.shards.to), retryKey(m.shards.to), deadKey(m.shards.to),
			conversionKey(m.shards.to))
	}
	if what != "put" {
		keys = append(keys, dirtyKey(m.shards.from), deadKey(m.shards.from))
	}
	if what != "drop" {
		keys = append(keys, m.new...)
	}
	if what != "put" {
		keys = append(keys, m.old...)
	}
	since := ""
	if m.since != 0 {
		since = strconv.FormatInt(m.since, 10)
	}
	return convertScript.Run(ctx, client, keys, append([]any{what, m.token, since, m.lineage}, m.args...)...).Text()
}

// send writes a page, and returns how many keys it converted.
func (c *converter) send(ctx context.Context, m *moving) (int, error) {
	if !c.cluster || m.shards.from == m.shards.to {
		return count(m.run(ctx, c.Redis, "move"))
	}
	for i := range m.to {
		if m.to[i].entry == asItIs {
			if err := c.copyAsItIs(ctx, m.old[i], m.new[i]); err != nil {
				return 0, err
			}
		}
	}
	if _, err := m.run(ctx, c.Redis, "put"); err != nil {
		return 0, err
	}
	return count(m.run(ctx, c.Redis, "drop"))
}

// count counts the keys that convert.lua converted.
func count(letters string, err error) (int, error) {
	n := 0
	for _, letter := range letters {
		if letter == 'y' {
			n++
		}
	}
	return n, err
}

// copyAsItIs copies a key without translation to another server.
func (c *converter) copyAsItIs(ctx context.Context, old, name string) error {
	value, err := c.Redis.Dump(ctx, old).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err == nil {
		err = c.Redis.RestoreReplace(ctx, name, 0, value).Err()
	}
	return err
}

func anys(texts []string) []any {
	out := make([]any, len(texts))
	for i, text := range texts {
		out[i] = text
	}
	return out
}
