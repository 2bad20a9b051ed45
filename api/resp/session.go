package resp

import (
	"fmt"
	"strings"
	"time"
)

// login is AUTH key, or AUTH name key.
func login(c *connection, args [][]byte) {
	switch {
	case len(args) > 3:
		c.fail(textSyntax)
	case c.multi != nil:
		c.fail("ERR 'auth' is not possible in a transaction")
	default:
		name := []byte(nil)
		if len(args) == 3 {
			name = args[1]
		}
		if c.admit(name, args[len(args)-1]) {
			c.out = appendOK(c.out)
		}
	}
}

// defaultUser is the name that clients send if they have only a password.
const defaultUser = "default"

// admit gives the connection the key with this token. If there is none, it answers the command; the connection keeps the key that it had.
func (c *connection) admit(name, token []byte) bool {
	who := string(name)
	if who == defaultUser {
		who = ""
	}
	key, err := c.server.Keys.Login(who, string(token))
	if err != nil {
		c.server.metrics.Reject(known(err).Code, 1)
		c.fail(textWrongPass)
		return false
	}
	c.use(key, true)
	return true
}

// checkKey finds out whether the key of the connection was removed, or has other scopes now.
func (c *connection) checkKey() {
	if c.key == nil {
		return
	}
	now, err := c.server.Keys.Again(c.key, 0)
	if err != nil {
		c.use(c.server.Keys.Guest())
		c.multi = nil         // AUTH is not possible in a transaction
		c.opened = time.Now() // for another AUTH
		return
	}
	if now != c.key { // it has other scopes, or another name
		if c.multi != nil && (now.Scope != c.key.Scope || now.Prefix != c.key.Prefix) {
			c.multi.abandon() // its commands were checked with the former ones
		}
		c.use(now, c.admitted)
	}
}

// hello is HELLO [version [AUTH name key] [SETNAME name]].
func hello(c *connection, args [][]byte) {
	version := c.version
	if len(args) > 1 {
		n, ok := integer(args[1])
		if !ok || n < 2 || n > 3 {
			c.fail("NOPROTO unsupported protocol version")
			return
		}
		version = int(n)
	}
	var credentials [][]byte
	name := c.name
	for rest := args[min(2, len(args)):]; len(rest) > 0; {
		switch {
		case is(rest[0], "auth") && len(rest) >= 3:
			credentials, rest = rest[1:3], rest[3:]
		case is(rest[0], "setname") && len(rest) >= 2:
			if !validName(rest[1]) {
				c.fail(textName)
				return
			}
			name, rest = string(rest[1]), rest[2:]
		default:
			c.fail("ERR Syntax error in HELLO option '" + excerpt(rest[0]) + "'")
			return
		}
	}
	if credentials != nil && !c.admit(credentials[0], credentials[1]) {
		return
	}
	if !c.admitted {
		c.fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option " +
			"can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	c.version, c.name = version, name
	out := c.appendMap(c.out, 7)
	out = appendBulk(appendBulk(out, "server"), "redis")
	out = appendBulk(appendBulk(out, "version"), redisVersion)
	out = appendInt(appendBulk(out, "proto"), int64(version))
	out = appendInt(appendBulk(out, "id"), c.id)
	out = appendBulk(appendBulk(out, "mode"), "standalone")
	out = appendBulk(appendBulk(out, "role"), "master")
	c.out = appendArray(appendBulk(out, "modules"), 0)
}

func ping(c *connection, args [][]byte) {
	switch len(args) {
	case 1:
		c.out = appendSimple(c.out, "PONG")
	case 2:
		c.out = appendBulk(c.out, args[1])
	default:
		c.fail("ERR wrong number of arguments for 'ping' command")
	}
}

func echo(c *connection, args [][]byte)  { c.out = appendBulk(c.out, args[1]) }
func answerOK(c *connection, _ [][]byte) { c.out = appendOK(c.out) }

func quit(c *connection, _ [][]byte) {
	c.out = appendOK(c.out)
	c.closing = true
}

func resetState(c *connection, _ [][]byte) {
	if c.admitted {
		c.opened = time.Now() // for another AUTH
	}
	c.reset()
	c.out = appendSimple(c.out, "RESET")
}

func selectDB(c *connection, args [][]byte) {
	switch n, ok := integer(args[1]); {
	case !ok:
		c.fail("ERR invalid DB index")
	case n != 0:
		c.fail("ERR DB index is out of range: there is only database 0")
	default:
		c.out = appendOK(c.out)
	}
}

const textName = "ERR Client names cannot contain spaces, newlines or special characters, and have at most 64 bytes."

// validName reports whether a client may call itself so.
func validName(name []byte) bool {
	if len(name) > maxNameBytes {
		return false
	}
	for _, b := range name {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

// subcommands are those of CLIENT, with the number of their arguments.
var subcommands = map[string]struct {
	arguments int
	run       func(c *connection, args [][]byte)
}{
	"id":       {0, func(c *connection, _ [][]byte) { c.out = appendInt(c.out, c.id) }},
	"info":     {0, func(c *connection, _ [][]byte) { c.out = appendBulk(c.out, c.describeClient()) }},
	"getname":  {0, clientName},
	"setname":  {1, setName},
	"setinfo":  {2, func(c *connection, args [][]byte) { c.setInfo(args[0], args[1]) }},
	"no-evict": {1, switchOnOff},
	"no-touch": {1, switchOnOff},
}

// client is CLIENT subcommand.
func client(c *connection, args [][]byte) {
	sub, found := subcommands[strings.ToLower(string(args[1]))]
	if !found || len(args)-2 != sub.arguments {
		c.fail("ERR unknown subcommand or wrong number of arguments for '" + excerpt(args[1]) + "'. " +
			"Try ID, SETNAME, GETNAME, SETINFO, INFO, NO-EVICT.")
		return
	}
	sub.run(c, args[2:])
}

func clientName(c *connection, _ [][]byte) {
	if c.name == "" {
		c.out = c.appendNull(c.out)
		return
	}
	c.out = appendBulk(c.out, c.name)
}

func setName(c *connection, args [][]byte) {
	if !validName(args[0]) {
		c.fail(textName)
		return
	}
	c.name = string(args[0])
	c.out = appendOK(c.out)
}

// switchOnOff is a switch that has no effect.
func switchOnOff(c *connection, args [][]byte) {
	if !is(args[0], "on") && !is(args[0], "off") {
		c.fail(textSyntax)
		return
	}
	c.out = appendOK(c.out)
}

func (c *connection) setInfo(what, value []byte) {
	at := 0
	switch {
	case is(what, "lib-name"):
	case is(what, "lib-ver"):
		at = 1
	default:
		c.fail("ERR Unrecognized option '" + excerpt(what) + "'")
		return
	}
	if !validName(value) {
		c.fail("ERR " + string(what) + " cannot contain spaces, newlines or special characters.")
		return
	}
	c.library[at] = string(value)
	c.out = appendOK(c.out)
}

// describeClient returns the line of CLIENT INFO.
func (c *connection) describeClient() string {
	user := defaultUser
	if c.key != nil && c.key.Name != "" {
		user = c.key.Name
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d db=0 multi=%s user=%s resp=%d lib-name=%s lib-ver=%s\n",
		c.id, c.RemoteAddr(), c.LocalAddr(), c.name, int(time.Since(c.opened).Seconds()), "-1", user, c.version,
		c.library[0], c.library[1])
}
