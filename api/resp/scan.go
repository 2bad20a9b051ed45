package resp

import (
	"bytes"
	"strconv"
	"strings"
	"sync"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// cursors are the places of unfinished SCANs: Redis's cursors are numbers, and ours are keys. It keeps the last ones of all connections,
// since clients with a pool continue on any of them.
type cursors struct {
	mu    sync.Mutex
	next  uint64
	slots [maxCursors]cursor
}

type cursor struct {
	id    uint64
	after counter.Key
}

func newCursors() *cursors { return &cursors{next: 1} }

// put returns the number of a place.
func (c *cursors) put(after counter.Key) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next++
	c.slots[id%maxCursors] = cursor{id, after}
	return id
}

// get returns the place with this number, unless many came after it.
func (c *cursors) get(id uint64) (after counter.Key, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.slots[id%maxCursors]
	return slot.after, slot.id == id
}

// scanQuery are the arguments of SCAN.
type scanQuery struct {
	after  counter.Key
	prefix string
	exact  bool // MATCH has no *: only the counter that has the prefix as its name
	limit  int
	none   bool // TYPE is not string
}

// scan is SCAN cursor [MATCH prefix*] [COUNT n] [TYPE string].
func scan(c *connection, args [][]byte) {
	if c.server.Lister == nil {
		c.fail(textNoCounters)
		return
	}
	q, ok := c.parseScan(args)
	if !ok {
		return
	}
	prefix, err := c.key.Within(q.prefix)
	if err == nil {
		_, err = c.key.Take(1)
	}
	if err != nil {
		c.failWith(err)
		return
	}
	if q.none {
		c.answerScan(0, nil)
		return
	}
	page, err := c.server.Lister.List(c.ctx, prefix, q.after, q.limit)
	if err != nil {
		c.failWith(err)
		return
	}
	next := uint64(0)
	if page.Next != "" && !q.exact {
		next = c.server.cursors.put(page.Next)
	}
	if q.exact {
		page.Results = page.Results[:min(1, len(page.Results))]
		if len(page.Results) == 1 && string(page.Results[0].Counter.Key) != q.prefix {
			page.Results = nil
		}
	}
	c.answerScan(next, page.Results)
}

func (c *connection) answerScan(next uint64, results []counter.Result) {
	c.out = appendArray(c.out, 2)
	c.out = appendBulk(c.out, strconv.FormatUint(next, 10))
	c.out = appendArray(c.out, len(results))
	for i := range results {
		c.out = appendBulk(c.out, string(results[i].Counter.Key))
	}
}

// parseScan parses the arguments. If they are wrong, it answers the command.
func (c *connection) parseScan(args [][]byte) (q scanQuery, ok bool) {
	q.limit = defaultListed
	id, err := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil {
		c.fail("ERR invalid cursor")
		return q, false
	}
	if id != 0 {
		if q.after, ok = c.server.cursors.get(id); !ok {
			c.fail("ERR invalid cursor: it is too old, or from another process; begin again with 0")
			return q, false
		}
	}
	for rest := args[2:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 {
			c.fail(textSyntax)
			return q, false
		}
		switch {
		case is(rest[0], "match"):
			if q.prefix, q.exact, ok = parsePattern(rest[1]); !ok {
				c.fail("ERR MATCH must be the beginning of a key and *, such as user:*")
				return q, false
			}
		case is(rest[0], "count"):
			n, isNumber := c.number(rest[1])
			if !isNumber {
				return q, false
			}
			if n < 1 {
				c.fail(textSyntax)
				return q, false
			}
			q.limit = int(min(n, maxListed))
		case is(rest[0], "type"):
			q.none = !is(rest[1], "string")
		default:
			c.fail(textSyntax)
			return q, false
		}
	}
	return q, true
}

// parsePattern parses a pattern of Redis that is a prefix and *, or a whole key. A backslash makes the next character an ordinary one.
func parsePattern(pattern []byte) (prefix string, exact, ok bool) {
	text, star := bytes.CutSuffix(pattern, []byte("*"))
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '*', '?', '[', ']':
			return "", false, false
		case '\\':
			if i++; i == len(text) {
				if !star {
					return "", false, false
				}
				star = false // the star was escaped
				b.WriteByte('*')
				continue
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	prefix = b.String()
	if prefix != "" {
		if _, err := counter.ParseKey(prefix); err != nil {
			return "", false, false
		}
	}
	return prefix, !star, star || prefix != ""
}
