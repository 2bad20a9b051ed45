package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// How the machine reads the servers: it decodes Redis by the format in internal/cache/entry.lua, and not with the code under test.

func machineTag(m *machine, key counter.Key) string {
	return "{aw:" + m.cache.Shard(key).String() + "}"
}

// entryOf returns the key of the entry with this name.
func entryOf(name any) (counter.Key, bool) {
	text, _ := name.(string)
	_, key, found := strings.Cut(text, "}:c:")
	return counter.Key(key), found && strings.HasPrefix(text, "{aw:")
}

// look reads the state of each key in Redis.
func (m *machine) look(t rapid.TB) map[counter.Key]observed {
	ctx := context.Background()
	var finish []func()
	out := make(map[counter.Key]observed)
	_, err := m.server.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range machineKeys {
			tag := machineTag(m, key)
			meta := pipe.Get(ctx, tag+":meta")
			aside := pipe.Exists(ctx, tag+":retry", tag+":dead")
			entry, ttl := pipe.Get(ctx, tag+":c:"+string(key)), pipe.PTTL(ctx, tag+":c:"+string(key))
			open, sealed := pipe.SIsMember(ctx, tag+":open", string(key)), pipe.SIsMember(ctx, tag+":sealed", string(key))
			records, unflushed := pipe.LLen(ctx, tag+":h:"+string(key)), pipe.Get(ctx, tag+":hn")
			retry, dead := pipe.ZScore(ctx, tag+":retry", string(key)), pipe.HExists(ctx, tag+":dead", string(key))
			finish = append(finish, func() {
				o := decodeObserved(t, entry.Val())
				o.open, o.sealed, o.retry, o.dead = open.Val(), sealed.Val(), retry.Err() == nil, dead.Val()
				if o.ttl = int64(ttl.Val()); o.ttl > 0 {
					o.ttl = ttl.Val().Milliseconds()
				}
				o.records = records.Val()
				o.shard = decodeShard(t, meta.Val())
				o.shard.unflushed, _ = unflushed.Int64() // 0: there is none
				o.shard.aside = aside.Val() > 0
				o.shard.restarted = !strings.Contains(meta.Val(), " "+m.run+" ")
				out[key] = o
			})
		}
		return nil
	})
	if !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	for _, f := range finish {
		f()
	}
	return out
}

// decodeShard reads a shard's epochs; "" for none.
func decodeShard(t rapid.TB, text string) observedShard {
	words := strings.Fields(text)
	if text == "" {
		return observedShard{}
	}
	require.Len(t, words, 8)
	return observedShard{
		watermark: decodeID(t, words[2]), first: decodeID(t, words[3]), sealed: decodeID(t, words[5]), requeued: decodeID(t, words[7]),
	}
}

// decodeID reads an epoch; 0 where there is none.
func decodeID(t rapid.TB, text string) int64 {
	if text == "" {
		return 0
	}
	id, err := strconv.ParseInt(text, 36, 64)
	require.NoError(t, err)
	return id
}

// decodeObserved reads the text of an entry; "" for none.
func decodeObserved(t rapid.TB, text string) observed {
	words := strings.Fields(text)
	if len(words) < len([]string{"value", "version", "epoch"}) {
		require.Empty(t, text)
		return observed{}
	}
	o := observed{present: true, text: text}
	var err error
	o.value, err = strconv.ParseInt(words[0], 10, 64)
	require.NoError(t, err)
	o.version, err = strconv.ParseInt(words[1], 10, 64)
	require.NoError(t, err)
	epoch, flags, _ := strings.Cut(words[2], ":")
	o.epoch = decodeID(t, epoch)
	if o.known = o.epoch; o.known == 0 && len(words) > 3 {
		o.known = decodeID(t, strings.TrimPrefix(words[3], "l"))
	}
	o.deleted, o.aside = strings.Contains(flags, "x"), strings.Contains(flags, "a")
	o.blind = strings.ContainsAny(flags, "us")
	return o
}

// noteSQL reads a row and its column in one snapshot.
const noteSQL = `
SELECT c.key IS NOT NULL, coalesce(c.value, 0), coalesce(c.version, 0), c.deleted_at IS NOT NULL, coalesce(c.lineage, 0),
	m.key IS NOT NULL, coalesce(m.n, 0)
FROM (SELECT $1::text AS key) one LEFT JOIN counters c USING (key) LEFT JOIN mapped m USING (key)`

// noteRows checks rows after an upsert. flown are the states of the entries when they were read. It is called within flights.
func (m *machine) noteRows(rows []counter.Row, flown map[counter.Key][]history) {
	for _, given := range rows {
		k := m.keys[given.Key]
		row := counter.Row{Key: given.Key}
		var counted, mapped bool
		var column int64
		err := m.db.QueryRow(noteSQL, string(given.Key)).
			Scan(&counted, &row.Value, &row.Version, &row.Deleted, &row.Lineage, &mapped, &column)
		if err != nil {
			m.failf("read the row of %s: %v", given.Key, err)
			return
		}
		if !counted {
			start, _ := k.row.state()
			if mapped && column != start {
				m.failf("the column of %s is %d, but it has no row in counters, and began with %d", given.Key, column, start)
			}
			continue
		}
		if !mapped && !row.Deleted && given.Key == "b" {
			m.failf("the row of %s was not inserted into its table, but counters has %+v", given.Key, row)
		}
		if mapped && column != row.Value {
			m.failf("the column of %s is %d, but counters has %+v", given.Key, column, row)
		}
		if row == k.seen {
			continue
		}
		m.logRow(row)
		if problem := k.become(row, flown[given.Key]); problem != "" {
			m.failf("the row of %s: %s", given.Key, problem)
		}
		if isRecorded(given.Key) {
			if problem := m.compareRecords(row, k.row); problem != "" {
				m.failf("the history of %s: %s", given.Key, problem)
			}
		}
	}
}

// become records the new row, which must be one of flown, and returns why it is wrong.
func (k *modelKey) become(row counter.Row, flown []history) string {
	before := k.seen
	k.seen = row
	if row.Version < before.Version {
		return fmt.Sprintf("it went back: from %+v to %+v", before, row)
	}
	for _, ops := range flown {
		if !ops.is(row.Value, row.Version, row.Deleted) {
			continue
		}
		was := k.row
		k.row, k.rows, k.must = ops, append(k.rows, ops), k.must.union(ops)
		if !was.within(ops) {
			return fmt.Sprintf("postgres lost something: %v became %v", was, ops)
		}
		return k.chain(row.Lineage, ops)
	}
	return fmt.Sprintf("it became %+v, which is none of %v", row, flown)
}

// chain checks that all states of a lineage follow from each other: otherwise two lineages have the same number.
func (k *modelKey) chain(lineage int64, ops history) string {
	if lineage == 0 {
		return ""
	}
	for _, other := range k.flown[lineage] {
		if !other.within(ops) && !ops.within(other) {
			return fmt.Sprintf("lineage %d was used twice: for %v and for %v", lineage, other, ops)
		}
	}
	k.flown[lineage] = append(k.flown[lineage], ops)
	return ""
}

// gatedStore is the Postgres of the machine: the real one behind gates, away during an outage, and with rows that another transaction has
// locked.
type gatedStore struct {
	*store.Store

	m *machine
}

func (s gatedStore) Read(ctx context.Context, keys []counter.Key) (rows map[counter.Key]counter.Row, err error) {
	gateErr := s.m.gate(ctx, "read", func(bool) error {
		if s.m.outage {
			return store.ErrUnavailable
		}
		var err error
		rows, err = s.Store.Read(context.WithoutCancel(ctx), keys)
		return err
	})
	if gateErr != nil {
		return nil, gateErr
	}
	return rows, nil
}

func (s gatedStore) UpsertUnlocked(ctx context.Context, rows []counter.Row) (upserted store.Upserted, err error) {
	return s.UpsertHistory(ctx, rows, nil)
}

func (s gatedStore) UpsertHistory(
	ctx context.Context, rows []counter.Row, records store.History,
) (upserted store.Upserted, err error) {
	var read map[counter.Key][]history
	if f := flightOf(ctx); f != nil {
		read = f.read
	}
	gateErr := s.m.gate(ctx, "upsert", func(bool) error {
		if s.m.outage {
			return store.ErrUnavailable
		}
		var unlocked []counter.Row
		var locked []counter.Key
		for _, row := range rows {
			if s.m.locked[row.Key] {
				locked = append(locked, row.Key)
			} else {
				unlocked = append(unlocked, row)
			}
		}
		var err error
		upserted, err = s.Store.UpsertHistory(context.WithoutCancel(ctx), unlocked, records)
		upserted.Locked = locked
		s.m.noteRows(rows, s.m.flown(rows, read))
		return err
	})
	if gateErr != nil {
		return store.Upserted{}, gateErr
	}
	return upserted, nil
}

// flown returns the states that a flight has read of the rows that it sends; in a discard, the current states.
func (m *machine) flown(rows []counter.Row, read map[counter.Key][]history) map[counter.Key][]history {
	if read != nil {
		return read
	}
	flown := make(map[counter.Key][]history)
	for _, row := range rows {
		flown[row.Key] = []history{m.keys[row.Key].entry.ops}
	}
	return flown
}

func (gatedStore) Available() bool { return true }
func (gatedStore) Up() bool        { return true }

// logRow records a row for the log of a failed run.
func (m *machine) logRow(row counter.Row) {
	lineage := strconv.FormatInt(row.Lineage, 36)
	m.rowLog = append(m.rowLog, fmt.Sprintf("%s: row %d %d l%s, deleted %v", row.Key, row.Value, row.Version, lineage, row.Deleted))
}
