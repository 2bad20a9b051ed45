package resp

import (
	"fmt"

	"github.com/afterwrite/afterwrite/internal/writepath"
)

// multi is a transaction: commands between MULTI and EXEC.
type multi struct {
	batch  batch
	broken bool // a command was refused: EXEC carries out nothing
}

// abandon makes EXEC carry out nothing.
func (m *multi) abandon() { *m = multi{broken: true} }

func begin(c *connection, _ [][]byte) {
	if c.multi != nil {
		c.fail("ERR MULTI calls can not be nested")
		return
	}
	if c.flush(); c.closing {
		return
	}
	c.multi = new(multi)
	c.out = appendOK(c.out)
}

// queue adds a command to the transaction. What Redis refuses when it runs, such as an argument that is no integer, is refused here.
func (c *connection) queue(cmd *command, args [][]byte) {
	if cmd.name == "reset" || cmd.name == "quit" { // they end the transaction
		c.multi = nil
		cmd.run(c, args)
		return
	}
	before := len(c.out)
	if cmd.kind == onCounters {
		cmd.run(c, args)
	} else {
		c.fail(fmt.Sprintf("ERR '%s' is not possible in a transaction", cmd.name))
	}
	if c.multi.batch.total > maxOperations && !c.multi.broken {
		c.fail(fmt.Sprintf("ERR a transaction may have %d operations", maxOperations))
	}
	if c.multi.broken {
		c.multi.abandon()
	}
	if len(c.out) == before {
		c.out = appendSimple(c.out, "QUEUED")
	}
}

// exec carries out a transaction as one request, in order, and answers with an array.
func exec(c *connection, _ [][]byte) {
	m := c.multi
	if m == nil {
		c.fail("ERR EXEC without MULTI")
		return
	}
	c.multi = nil
	if m.broken {
		c.out = appendError(c.out, "EXECABORT Transaction discarded because of previous errors.")
		return
	}
	b := &m.batch
	start := len(c.out)
	c.out = appendArray(c.out, len(b.answers))
	if len(b.answers) == 0 {
		return
	}
	c.unconfirmed = c.unconfirmed || b.writes
	results := c.carryOut(b, writepath.Options{})
	for i := range b.answers {
		from := len(c.out)
		if c.out = c.appendAnswer(c.out, b, &b.answers[i], results); c.closing {
			c.out = append(c.out[:start], c.out[from:]...) // the error is the answer to EXEC
			return
		}
	}
}

func discard(c *connection, _ [][]byte) {
	if c.multi == nil {
		c.fail("ERR DISCARD without MULTI")
		return
	}
	c.multi = nil
	c.out = appendOK(c.out)
}

func watch(c *connection, _ [][]byte) {
	c.fail("ERR WATCH is not supported: a counter has a version, and the HTTP API changes it only at that version (If-Match)")
}

func unwatch(c *connection, _ [][]byte) {
	if c.multi != nil {
		c.fail("ERR 'unwatch' is not possible in a transaction")
		return
	}
	if c.flush(); !c.closing {
		c.out = appendOK(c.out)
	}
}
