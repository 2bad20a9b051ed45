package resp

import (
	"fmt"
	"math"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// counterKey returns the key in an argument. If it is not a key, or the API key may not use the counter, it answers the command.
func (c *connection) counterKey(arg []byte) (key counter.Key, ok bool) {
	key, err := counter.ParseKey(string(arg))
	if err == nil {
		err = c.key.Check(key)
	}
	if err != nil {
		c.failWith(err)
		return "", false
	}
	return key, true
}

// integer parses a signed 64-bit integer as Redis does: no plus sign, no spaces, no leading zeros.
func integer(arg []byte) (n int64, ok bool) {
	digits := arg
	if len(digits) > 1 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 19 || digits[0] == '+' || (digits[0] == '0' && len(arg) > 1) {
		return 0, false
	}
	if len(digits) == 19 { // it may not fit
		n, err := strconv.ParseInt(string(arg), 10, 64)
		return n, err == nil
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int64(d-'0')
	}
	if arg[0] == '-' {
		n = -n
	}
	return n, true
}

// number is integer for an argument of the present command. If it is none, it answers the command.
func (c *connection) number(arg []byte) (n int64, ok bool) {
	if n, ok = integer(arg); !ok {
		c.fail(textInteger)
	}
	return n, ok
}

func incr(c *connection, args [][]byte) { c.increment(args[1], 1) }
func decr(c *connection, args [][]byte) { c.increment(args[1], -1) }

func incrby(c *connection, args [][]byte) {
	if by, ok := c.number(args[2]); ok {
		c.increment(args[1], by)
	}
}

func decrby(c *connection, args [][]byte) {
	by, ok := c.number(args[2])
	switch {
	case !ok:
	case by == math.MinInt64:
		c.fail("ERR decrement would overflow")
	default:
		c.increment(args[1], -by)
	}
}

func (c *connection) increment(name []byte, by int64) {
	if c.idempotency == "" {
		c.addIncrement(name, by)
		return
	}
	if key, ok := c.counterKey(name); ok {
		c.add(formValue, counter.Operation{Key: key, Kind: counter.Increment, Amount: by})
	}
}

// boundedIncrby is AW.INCRBY key n [MIN a] [MAX b].
func boundedIncrby(c *connection, args [][]byte) {
	by, ok := c.number(args[2])
	if !ok {
		return
	}
	condition := counter.Unconditional()
	for rest := args[3:]; len(rest) > 0; rest = rest[2:] {
		bound := &condition.Max
		switch {
		case len(rest) < 2:
			c.fail(textSyntax)
			return
		case is(rest[0], "min"):
			bound = &condition.Min
		case !is(rest[0], "max"):
			c.fail(textSyntax)
			return
		}
		if *bound, ok = c.number(rest[1]); !ok {
			return
		}
	}
	if condition.Min > condition.Max {
		c.fail("ERR MIN is greater than MAX")
		return
	}
	key, ok := c.counterKey(args[1])
	if !ok {
		return
	}
	op := counter.Operation{Key: key, Kind: counter.Increment, Amount: by}
	if !condition.Unbounded() {
		op.Condition = &condition
	}
	c.add(formValue, op)
}

// set is SET key n [NX | XX] [GET] [KEEPTTL].
func set(c *connection, args [][]byte) {
	var when counter.Condition
	old := false
	for _, option := range args[3:] {
		switch {
		case is(option, "nx"):
			when.Absent = true
		case is(option, "xx"):
			when.Exists = true
		case is(option, "get"):
			old = true
		case is(option, "keepttl"): // counters do not expire
		case is(option, "ex"), is(option, "px"), is(option, "exat"), is(option, "pxat"):
			c.fail(textExpiry)
			return
		default:
			c.fail(textSyntax)
			return
		}
	}
	if when.Absent && when.Exists {
		c.fail(textSyntax)
		return
	}
	c.setTo(args[1], args[2], when, old, formOKOrNull)
}

func setnx(c *connection, args [][]byte) {
	c.setTo(args[1], args[2], counter.Condition{Absent: true}, false, formSet)
}

func getset(c *connection, args [][]byte) {
	c.setTo(args[1], args[2], counter.Condition{}, true, formOld)
}

// setTo sets a counter. old means that the answer is the value before, which the same call to Redis reads.
func (c *connection) setTo(name, value []byte, when counter.Condition, old bool, f form) {
	if old && c.idempotency != "" {
		c.fail("ERR AW.IDEM takes no command that returns the old value: a repeated one could not return it")
		return
	}
	n, ok := c.number(value)
	if !ok {
		return
	}
	key, ok := c.counterKey(name)
	if !ok {
		return
	}
	op := counter.Operation{Key: key, Kind: counter.Set, Amount: n}
	// With a condition, even one that is always met, it is not applied to an unknown base: then the old value could not be answered.
	if old || when.Absent || when.Exists {
		condition := counter.Unconditional()
		condition.Absent, condition.Exists = when.Absent, when.Exists
		op.Condition = &condition
	}
	switch {
	case old:
		c.add(formOld, counter.Operation{Key: key, Kind: counter.Get}, op)
	case op.Condition == nil:
		c.add(formOK, op)
	default:
		c.add(f, op)
	}
}

func mset(c *connection, args [][]byte) {
	if len(args)%2 == 0 {
		c.fail("ERR wrong number of arguments for 'mset' command")
		return
	}
	ops := make([]counter.Operation, 0, len(args)/2)
	for i := 1; i < len(args); i += 2 {
		key, ok := c.counterKey(args[i])
		if !ok {
			return
		}
		n, ok := c.number(args[i+1])
		if !ok {
			return
		}
		ops = append(ops, counter.Operation{Key: key, Kind: counter.Set, Amount: n})
	}
	c.add(formOK, ops...)
}

func del(c *connection, args [][]byte) { c.each(formDeleted, counter.Delete, args[1:]) }

// each adds an operation for each key.
func (c *connection) each(f form, kind counter.Kind, names [][]byte) {
	ops := make([]counter.Operation, 0, len(names))
	for _, name := range names {
		key, ok := c.counterKey(name)
		if !ok {
			return
		}
		ops = append(ops, counter.Operation{Key: key, Kind: kind})
	}
	c.add(f, ops...)
}

// idempotent is AW.IDEM id command: the command is carried out only if no earlier one on its counters had the ID.
func idempotent(c *connection, args [][]byte) {
	id, err := counter.ParseID(string(args[1]))
	if err != nil {
		c.failWith(err)
		return
	}
	cmd := c.find(args[2])
	switch {
	case cmd == nil || !cmd.takesID():
		c.fail(fmt.Sprintf("ERR AW.IDEM does not take '%s': it takes writes of counters", excerpt(args[2])))
	case !fits(len(args)-2, cmd.arity):
		c.fail(fmt.Sprintf("ERR wrong number of arguments for '%s' command", cmd.name))
	default:
		c.idempotency = id
		cmd.run(c, args[2:])
		c.idempotency = ""
	}
}

func (cmd *command) takesID() bool {
	return cmd.kind == onCounters && cmd.keys != [3]int{} && cmd.scope&writeScope != 0 && cmd.name != "getset"
}

// identify gives the operations of a command the ID of AW.IDEM. A single one has the ID itself, as over HTTP; of several, each has the ID
// and its position among those on its key, as in a batch over HTTP.
func (c *connection) identify(ops []counter.Operation) {
	switch {
	case c.idempotency == "":
	case len(ops) == 1:
		ops[0].ID = c.idempotency
	default:
		positions := make(map[counter.Key]int, len(ops))
		for i := range ops {
			ops[i].ID = c.idempotency + "\x01" + strconv.Itoa(positions[ops[i].Key])
			positions[ops[i].Key]++
		}
	}
}
