package resp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// command is a command of the protocol.
type command struct {
	name  string // in lower case
	arity int    // arguments with the name; -n: n or more
	scope auth.Scope
	kind  kind
	keys  [3]int // the first key, the last (-1: of the arguments), and the step; as COMMAND INFO has them
	run   func(c *connection, args [][]byte)

	total prometheus.Counter
}

// kind says how a command fits into a pipeline and a transaction.
type kind uint8

const (
	onConnection kind = iota // acts on the connection or the server; not in a transaction
	onCounters               // appends to the batch
	onBatch                  // controls the transaction, or needs the operations before it to be answered; see queue
	beforeLogin              // like onConnection, and needs no key
)

// table returns the commands by name.
func table() map[string]*command {
	one, all, pairs := [3]int{1, 1, 1}, [3]int{1, -1, 1}, [3]int{1, -1, 2}
	list := []*command{
		{name: "get", arity: 2, scope: auth.Read, kind: onCounters, keys: one, run: get},
		{name: "mget", arity: -2, scope: auth.Read, kind: onCounters, keys: all, run: mget},
		{name: "exists", arity: -2, scope: auth.Read, kind: onCounters, keys: all, run: exists},
		{name: "type", arity: 2, scope: auth.Read, kind: onCounters, keys: one, run: fact(formType)},
		{name: "strlen", arity: 2, scope: auth.Read, kind: onCounters, keys: one, run: fact(formLength)},
		{name: "ttl", arity: 2, scope: auth.Read, kind: onCounters, keys: one, run: fact(formTTL)},
		{name: "pttl", arity: 2, scope: auth.Read, kind: onCounters, keys: one, run: fact(formTTL)},

		{name: "set", arity: -3, scope: auth.Write, kind: onCounters, keys: one, run: set},
		{name: "getset", arity: 3, scope: auth.Write, kind: onCounters, keys: one, run: getset},
		{name: "setnx", arity: 3, scope: auth.Write, kind: onCounters, keys: one, run: setnx},
		{name: "mset", arity: -3, scope: auth.Write, kind: onCounters, keys: pairs, run: mset},
		{name: "incr", arity: 2, scope: auth.Write, kind: onCounters, keys: one, run: incr},
		{name: "incrby", arity: 3, scope: auth.Write, kind: onCounters, keys: one, run: incrby},
		{name: "decr", arity: 2, scope: auth.Write, kind: onCounters, keys: one, run: decr},
		{name: "decrby", arity: 3, scope: auth.Write, kind: onCounters, keys: one, run: decrby},
		{name: "del", arity: -2, scope: auth.Write, kind: onCounters, keys: all, run: del},
		{name: "unlink", arity: -2, scope: auth.Write, kind: onCounters, keys: all, run: del},
		{name: "aw.incrby", arity: -3, scope: auth.Write, kind: onCounters, keys: one, run: boundedIncrby},
		{name: "aw.idem", arity: -3, scope: auth.Write, kind: onCounters, run: idempotent},
		{name: "aw.wait", arity: 3, scope: auth.Read, keys: one, run: awaitPostgres},

		{name: "multi", arity: 1, kind: onBatch, run: begin},
		{name: "exec", arity: 1, kind: onBatch, run: exec},
		{name: "discard", arity: 1, kind: onBatch, run: discard},
		{name: "watch", arity: -2, kind: onBatch, run: watch},
		{name: "unwatch", arity: 1, kind: onBatch, run: unwatch},

		{name: "wait", arity: 3, kind: onBatch, scope: auth.Write, run: waitReplicas},
		{name: "waitaof", arity: 4, kind: onBatch, scope: auth.Write, run: waitDisk},
		{name: "scan", arity: -2, scope: auth.Read, run: scan},

		{name: "auth", arity: -2, kind: beforeLogin, run: login},
		{name: "hello", arity: -1, kind: beforeLogin, run: hello},
		{name: "ping", arity: -1, run: ping},
		{name: "quit", arity: -1, kind: beforeLogin, run: quit},
		{name: "reset", arity: 1, kind: beforeLogin, run: resetState},
		{name: "echo", arity: 2, run: echo},
		{name: "select", arity: 2, run: selectDB},
		{name: "readonly", arity: 1, run: answerOK},
		{name: "readwrite", arity: 1, run: answerOK},
		{name: "client", arity: -2, run: client},
		{name: "command", arity: -1, run: describe},
		{name: "config", arity: -2, run: configuration},
		{name: "info", arity: -1, run: info},
	}
	byName := make(map[string]*command, len(list))
	for _, cmd := range list {
		byName[cmd.name] = cmd
	}
	return byName
}

// maxCommandName is longer than any command's name.
const maxCommandName = 16

// find returns the command with this name in any case, or nil.
func (c *connection) find(name []byte) *command {
	if string(name) == c.lastName { // nearly always
		return c.last
	}
	var lower [maxCommandName]byte
	if len(name) > len(lower) {
		return nil
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		lower[i] = b
	}
	cmd := c.server.commands[string(lower[:len(name)])]
	if cmd != nil {
		c.last, c.lastName = cmd, string(name)
	}
	return cmd
}

// command carries out one command, or appends it to the batch.
func (c *connection) command(args [][]byte) {
	cmd := c.find(args[0])
	if cmd == nil {
		c.count(nil)
		if is(args[0], "post") || is(args[0], "host:") {
			c.flush()
			c.closing = true // a web page makes its visitor's browser send commands in the body of a request
			c.server.logHTTP(c)
			return
		}
		c.server.metrics.unknown(args[0], c.admitted)
		c.fail(fmt.Sprintf("ERR unknown command '%s'", excerpt(args[0])))
		return
	}
	c.count(cmd)
	switch {
	case !c.admitted && cmd.kind != beforeLogin:
		c.fail(textNoAuth)
	case !fits(len(args), cmd.arity):
		c.fail(fmt.Sprintf("ERR wrong number of arguments for '%s' command", cmd.name))
	case !c.key.Has(cmd.scope):
		c.failWith(lacks(c.key, cmd))
	case c.multi != nil && cmd.kind != onBatch:
		c.queue(cmd, args)
	default:
		if cmd.kind == onConnection || cmd.kind == beforeLogin {
			c.flush()
			c.sendSome()   // an answer to SCAN or COMMAND has up to 260 KB, and a pipeline many of them
			if c.closing { // an earlier outcome is not known, or the client does not read
				return
			}
		}
		cmd.run(c, args)
	}
}

func fits(n, arity int) bool { return n == arity || (arity < 0 && n >= -arity) }

// lacks returns the error for a key without the scope of a command.
func lacks(key *auth.Key, cmd *command) error {
	return &counter.Error{
		Code:   auth.CodeForbidden,
		Detail: fmt.Sprintf("the API key %s lacks the scope %s, which '%s' needs", key.Name, cmd.scope, cmd.name),
	}
}

// excerpt returns the beginning of what a client sent, for an error.
func excerpt(b []byte) string {
	const most = 64
	if len(b) > most {
		b = b[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(b))
}

// is reports whether an argument is a word in any case. word is in lower case.
func is(arg []byte, word string) bool {
	return len(arg) == len(word) && strings.EqualFold(string(arg), word)
}

// names returns the names of all commands in order.
func (s *Server) names() []string {
	names := make([]string, 0, len(s.commands))
	for name := range s.commands {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
