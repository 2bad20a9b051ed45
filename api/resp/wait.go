package resp

import (
	"time"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const writeScope = auth.Write

// waitReplicas is WAIT replicas ms. It waits for the commands that have arrived together with it: their durability is asked for with the
// call that writes them, because no later question can be answered reliably (docs/decisions/0032).
func waitReplicas(c *connection, args [][]byte) {
	replicas, ok := c.number(args[1])
	if !ok {
		return
	}
	timeout, ok := c.timeout(args[2])
	if !ok {
		return
	}
	reached, ok := c.confirm(writepath.OnReplicas, timeout, replicas > 0)
	if !ok {
		return
	}
	n := int64(0)
	if reached {
		n = int64(c.server.Replicas)
	}
	c.out = appendInt(c.out, n)
}

// waitDisk is WAITAOF local replicas ms.
func waitDisk(c *connection, args [][]byte) {
	local, ok := c.number(args[1])
	if !ok {
		return
	}
	replicas, ok := c.number(args[2])
	if !ok {
		return
	}
	timeout, ok := c.timeout(args[3])
	if !ok {
		return
	}
	if replicas != 0 || local < 0 || local > 1 {
		c.fail("ERR WAITAOF takes 0 or 1, and 0 replicas: only the disk of the primary can be confirmed")
		return
	}
	reached, ok := c.confirm(writepath.OnDisk, timeout, local > 0)
	if !ok {
		return
	}
	n := int64(0)
	if reached {
		n = 1
	}
	c.out = appendInt(appendInt(appendArray(c.out, 2), n), 0)
}

// confirm answers the commands before WAIT, which must have the durability if it is needed. It reports whether they have it. If it cannot
// find out, it answers the command, and ok is false.
func (c *connection) confirm(level writepath.Durability, timeout time.Duration, needed bool) (reached, ok bool) {
	if c.multi != nil {
		c.fail("ERR WAIT is not possible in a transaction")
		return false, false
	}
	options := writepath.Options{Durability: level, Wait: timeout}
	if !needed || !c.batch.writes { // reads have no durability: the wait would be for Postgres
		options = writepath.Options{}
	}
	before := c.unconfirmed && c.server.Durability != level
	reached = c.flushWith(options)
	if c.closing {
		return false, false
	}
	if before && needed {
		c.unconfirmed = false // the next WAIT is for what follows
		c.fail("ERR WAIT cannot confirm the earlier writes of this connection, which were answered before it arrived. The writes that " +
			"have arrived with it were carried out. Send every write with its WAIT in one pipeline, or set AFTERWRITE_DURABILITY")
		return false, false
	}
	return reached && needed, true
}

// timeout parses a time-out in milliseconds. 0, which is none in Redis, is the longest here. All waits of a pipeline together are as long
// at most: meanwhile nobody notices that the client has left.
func (c *connection) timeout(arg []byte) (d time.Duration, ok bool) {
	ms, ok := integer(arg)
	if !ok || ms < 0 {
		c.fail(textTimeout)
		return 0, false
	}
	longest := c.server.limits.wait
	if ms > 0 && ms < int64(longest/time.Millisecond) {
		d = time.Duration(ms) * time.Millisecond
	} else {
		d = longest
	}
	return max(min(d, longest-time.Since(c.now)), time.Millisecond), true
}

// awaitPostgres is AW.WAIT key ms: it waits until Postgres has the counter, and answers 1, or 0 after the time.
func awaitPostgres(c *connection, args [][]byte) {
	timeout, ok := c.timeout(args[2])
	if !ok {
		return
	}
	key, ok := c.counterKey(args[1])
	if !ok {
		return
	}
	if _, err := c.key.Take(1); err != nil {
		c.failWith(err)
		return
	}
	if c.send() != nil { // the answers before it need not wait
		c.closing = true
		return
	}
	ctx, end := c.span(1, 1)
	defer end()
	r := c.server.counters.Do(ctx, []counter.Operation{{Key: key, Kind: counter.Get}}, writepath.Options{Wait: timeout})[0]
	if r.Err != nil {
		c.failWith(explain(r.Err, false))
		return
	}
	n := int64(0)
	if r.Counter.Synced || (r.Counter.Known && r.Counter.Version == 0) { // Postgres lacks nothing of a counter that was never written
		n = 1
	}
	c.out = appendInt(c.out, n)
}
