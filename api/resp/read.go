package resp

import "github.com/afterwrite/afterwrite/internal/counter"

func get(c *connection, args [][]byte) {
	if key, ok := c.counterKey(args[1]); ok {
		c.add(formBulk, counter.Operation{Key: key, Kind: counter.Get})
	}
}

func mget(c *connection, args [][]byte)   { c.each(formBulks, counter.Get, args[1:]) }
func exists(c *connection, args [][]byte) { c.each(formExisting, counter.Get, args[1:]) }

// fact returns the handler of a command that says something about one counter.
func fact(f form) func(c *connection, args [][]byte) {
	return func(c *connection, args [][]byte) {
		if key, ok := c.counterKey(args[1]); ok {
			c.add(f, counter.Operation{Key: key, Kind: counter.Get})
		}
	}
}
