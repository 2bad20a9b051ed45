package resp

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// redisVersion is the version of Redis whose commands these are, for clients that look at it.
const redisVersion = "7.2.0"

// describe is COMMAND [COUNT | INFO name ... | DOCS name ... | LIST].
func describe(c *connection, args [][]byte) {
	switch {
	case len(args) == 1:
		c.describeAll(c.server.names())
	case is(args[1], "count") && len(args) == 2:
		c.out = appendInt(c.out, int64(len(c.server.commands)))
	case is(args[1], "list") && len(args) == 2:
		names := c.server.names()
		c.out = appendArray(c.out, len(names))
		for _, name := range names {
			c.out = appendBulk(c.out, name)
		}
	case is(args[1], "info"):
		c.describeAll(c.asked(args[2:]))
	case is(args[1], "docs"):
		c.document(c.asked(args[2:]))
	default:
		c.fail("ERR unknown subcommand or wrong number of arguments for '" + excerpt(args[1]) + "'. Try COUNT, INFO, DOCS, LIST.")
	}
}

// asked returns the names in arguments, or all.
func (c *connection) asked(args [][]byte) []string {
	if len(args) == 0 {
		return c.server.names()
	}
	names := make([]string, len(args))
	for i, arg := range args {
		names[i] = strings.ToLower(string(arg))
	}
	return names
}

// describeAll appends what COMMAND INFO says about each command.
func (c *connection) describeAll(names []string) {
	out := appendArray(c.out, len(names))
	for _, name := range names {
		cmd := c.server.commands[name]
		if cmd == nil {
			out = c.appendNull(out)
			continue
		}
		out = appendArray(out, 6)
		out = appendBulk(out, cmd.name)
		out = appendInt(out, int64(cmd.arity))
		flag := "readonly"
		switch {
		case cmd.scope&writeScope != 0:
			flag = "write"
		case cmd.scope == 0:
			flag = "fast"
		}
		out = appendSimple(appendArray(out, 1), flag)
		for _, n := range cmd.keys {
			out = appendInt(out, int64(n))
		}
	}
	c.out = out
}

// document appends what COMMAND DOCS says about the commands that exist.
func (c *connection) document(names []string) {
	n := 0
	for _, name := range names {
		if c.server.commands[name] != nil {
			n++
		}
	}
	out := c.appendMap(c.out, n)
	for _, name := range names {
		if cmd := c.server.commands[name]; cmd != nil {
			out = appendBulk(out, cmd.name)
			out = c.appendMap(out, 2)
			out = appendBulk(appendBulk(out, "summary"), summaries[cmd.name])
			out = appendBulk(appendBulk(out, "group"), "string")
		}
	}
	c.out = out
}

// settings are what CONFIG GET knows: what clients and redis-benchmark ask for.
func (s *Server) settings() [][2]string {
	return [][2]string{
		{"appendonly", "no"},
		{"databases", "1"},
		{"maxclients", decimal(int64(s.limits.connections))},
		{"maxmemory", "0"},
		{"maxmemory-policy", "noeviction"},
		{"proto-max-bulk-len", decimal(maxArgumentBytes)},
		{"save", ""},
		{"timeout", decimal(int64(s.limits.idle / time.Second))},
	}
}

// configuration is CONFIG GET pattern ...
func configuration(c *connection, args [][]byte) {
	if !is(args[1], "get") || len(args) < 3 {
		c.fail("ERR afterwrite has only CONFIG GET: its settings are environment variables")
		return
	}
	var found [][2]string
	for _, setting := range c.server.settings() {
		for _, pattern := range args[2:] {
			if ok, _ := path.Match(strings.ToLower(string(pattern)), setting[0]); ok {
				found = append(found, setting)
				break
			}
		}
	}
	out := c.appendMap(c.out, len(found))
	for _, setting := range found {
		out = appendBulk(appendBulk(out, setting[0]), setting[1])
	}
	c.out = out
}

// backlogs remembers the backlog for a second, so that a client that polls INFO does not load Redis.
type backlogs struct {
	mu      sync.Mutex
	counted time.Time
	last    cache.Backlog
	err     error
}

// backlogTimeout bounds the counting for INFO.
const backlogTimeout = time.Second

func (b *backlogs) get(ctx context.Context, count func(ctx context.Context) (cache.Backlog, error)) (cache.Backlog, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.counted) > time.Second {
		ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
		defer cancel()
		b.last, b.err = count(ctx)
		b.counted = time.Now()
	}
	return b.last, b.err
}

// info is INFO [section ...]: server, clients, stats, afterwrite.
func info(c *connection, args [][]byte) {
	s := c.server
	wanted := func(section string) bool {
		for _, arg := range args[1:] {
			if is(arg, section) || is(arg, "all") || is(arg, "everything") || is(arg, "default") {
				return true
			}
		}
		return len(args) == 1
	}
	var text strings.Builder
	section := func(name string, lines func()) {
		if wanted(strings.ToLower(name)) {
			if text.Len() > 0 {
				text.WriteString("\r\n")
			}
			fmt.Fprintf(&text, "# %s\r\n", name)
			lines()
		}
	}
	line := func(name string, value any) { fmt.Fprintf(&text, "%s:%v\r\n", name, value) }
	section("Server", func() {
		line("redis_version", redisVersion)
		line("redis_mode", "standalone")
		line("server_name", "afterwrite")
		line("afterwrite_version", s.Version)
		line("process_id", os.Getpid())
		line("uptime_in_seconds", int(time.Since(s.began).Seconds()))
		line("loading", 0)
	})
	section("Clients", func() {
		line("connected_clients", int(s.open()))
		line("maxclients", s.limits.connections)
	})
	section("Stats", func() {
		line("total_connections_received", s.lastID.Load())
	})
	section("Replication", func() { line("role", "master") })
	section("Afterwrite", func() { s.describeBacklog(c.ctx, line) })
	c.out = appendBulk(c.out, text.String())
}

// describeBacklog writes how far Postgres is behind.
func (s *Server) describeBacklog(ctx context.Context, line func(name string, value any)) {
	if s.Backlog == nil {
		return
	}
	b, err := s.backlog.get(ctx, s.Backlog)
	if err != nil {
		line("complete", 0) // Redis, or a part of it, did not answer
	} else {
		line("complete", 1)
	}
	line("dirty", b.Dirty)
	line("retrying", b.Retrying)
	line("dead", b.Dead)
	line("oldest_dirty_ms", b.Oldest.Milliseconds())
}

// summaries are what COMMAND DOCS says about the commands. docs/redis-protocol.md says more.
var summaries = map[string]string{
	"get":       "Returns the value of a counter.",
	"mget":      "Returns the values of counters.",
	"exists":    "Counts the counters that exist.",
	"type":      "Returns string, or none.",
	"strlen":    "Returns the length of the value.",
	"ttl":       "Returns -1, or -2 without a counter.",
	"pttl":      "Returns -1, or -2 without a counter.",
	"set":       "Sets a counter to an integer.",
	"getset":    "Sets a counter and returns its old value.",
	"setnx":     "Sets a counter that does not exist.",
	"mset":      "Sets counters.",
	"incr":      "Adds 1 to a counter.",
	"incrby":    "Adds an integer to a counter.",
	"decr":      "Subtracts 1 from a counter.",
	"decrby":    "Subtracts an integer from a counter.",
	"del":       "Deletes counters.",
	"unlink":    "Deletes counters.",
	"aw.incrby": "Adds an integer, unless the value would leave MIN or MAX.",
	"aw.idem":   "Carries out a command once for each ID.",
	"aw.wait":   "Waits until Postgres has a counter.",
	"multi":     "Begins a transaction.",
	"exec":      "Carries out a transaction.",
	"discard":   "Drops a transaction.",
	"watch":     "Is refused.",
	"unwatch":   "Has no effect.",
	"wait":      "Waits until replicas of Redis have the writes before it in the pipeline.",
	"waitaof":   "Waits until Redis's disk has the writes before it in the pipeline.",
	"scan":      "Lists the counters that Postgres has.",
	"auth":      "Sends an API key.",
	"hello":     "Chooses the version of the protocol.",
	"ping":      "Returns PONG.",
	"quit":      "Ends the connection.",
	"reset":     "Makes the connection a new one.",
	"echo":      "Returns its argument.",
	"select":    "Accepts 0.",
	"readonly":  "Has no effect.",
	"readwrite": "Has no effect.",
	"client":    "Describes the connection.",
	"command":   "Describes the commands.",
	"config":    "Returns settings that clients ask for.",
	"info":      "Describes the server.",
}
