package process

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// permission is one that a user of Redis's access control list (ACL) needs.
type permission struct {
	// name is a command, or a pattern of keys (~) or channels (&), as ACL SETUSER takes it.
	name string
	// args are what the check sends with the command; for a pattern it is all that the check sends. KEY is a key that is never used.
	// PREFIX, here and in the name, is that of the namespace.
	args string
	// minor is the version 7.minor since which Redis has the command: older ones refuse a rule with an unknown name.
	minor int
	// optional is what does not work without it. "": the process cannot work without it.
	optional string
}

// permissions are all that afterwrite and Asynq need, those of the scripts included. The end-to-end tests run with exactly these.
//
// The conversion of a Redis of version 0.1 is not among them. It also needs dump, restore and pttl.
//
//nolint:dupword,goconst // arguments as text are easier to read than constants
var permissions = []permission{
	// Keys and channels. All namespaces share those of Asynq that are not inside braces.
	{name: "~{PREFIXaw:*", args: "exists {PREFIXaw:check}"},
	{name: "~PREFIXaw:*", args: "exists PREFIXaw:check"},
	{name: "~asynq:{PREFIXaw-*", args: "exists asynq:{PREFIXaw-check}"},
	{name: "~asynq:queues", args: "exists asynq:queues"},
	{name: "~asynq:servers*", args: "exists asynq:servers:check"},
	{name: "~asynq:workers*", args: "exists asynq:workers:check"},
	{name: "~asynq:schedulers*", args: "exists asynq:schedulers:check", optional: "Asynq's pages"},
	{name: "&PREFIXaw:acks", args: "publish PREFIXaw:acks x", optional: "waiting for Postgres"},
	{name: "&asynq:cancel", args: "publish asynq:cancel x", optional: "cancelling tasks in Asynq's pages"},

	// Connections.
	{name: "ping"},
	{name: "select", args: "0"},
	{name: "client|setname", args: "afterwrite"},
	{name: "client|setinfo", args: "LIB-NAME go-redis", minor: 2, optional: "the version of the client in CLIENT LIST"},
	{name: "eval", args: "- 1 KEY"},
	{name: "evalsha", args: "0000000000000000000000000000000000000000 1 KEY"},
	{name: "publish", args: "PREFIXaw:acks x", optional: "waiting for Postgres"},
	{name: "subscribe", args: "PREFIXaw:acks", optional: "waiting for Postgres"},
	{name: "unsubscribe", args: "PREFIXaw:acks", optional: "waiting for Postgres"},

	// The state of the server.
	{name: "info", args: "server"},
	{name: "time"},
	{name: "dbsize"},
	{name: "config|get", args: "appendfsync", optional: "checks of appendfsync, and durability=disk"},
	{name: "wait", args: "0 1", optional: "durability=replica"},
	{name: "waitaof", args: "0 0 1", minor: 2, optional: "durability=disk"},
	{name: "multi", optional: "this check"},

	// On a cluster. Asynqmon's pages read the rest.
	{name: "command", optional: "a cluster"},
	{name: "cluster|slots", optional: "a cluster"},
	{name: "cluster|info", optional: "Asynq's pages on a cluster"},
	{name: "cluster|nodes", optional: "Asynq's pages on a cluster"},
	{name: "cluster|keyslot", args: "KEY", optional: "Asynq's pages on a cluster"},

	// Keys.
	{name: "del", args: "KEY"},
	{name: "exists", args: "KEY"},
	{name: "expire", args: "KEY 1"},
	{name: "expireat", args: "KEY 1"},
	{name: "pexpire", args: "KEY 1"},
	{name: "rename", args: "KEY KEY"},
	{name: "scan", args: "0 COUNT 1"},
	{name: "type", args: "KEY"},
	{name: "unlink", args: "KEY"},

	{name: "get", args: "KEY"},
	{name: "incr", args: "KEY"},
	{name: "mget", args: "KEY"},
	{name: "mset", args: "KEY x"},
	{name: "set", args: "KEY x"},
	{name: "setex", args: "KEY 1 x"},

	{name: "hdel", args: "KEY x"},
	{name: "hexists", args: "KEY x"},
	{name: "hget", args: "KEY x"},
	{name: "hgetall", args: "KEY"},
	{name: "hlen", args: "KEY"},
	{name: "hmget", args: "KEY x"},
	{name: "hscan", args: "KEY 0"},
	{name: "hset", args: "KEY x x"},
	{name: "hsetnx", args: "KEY x x"},
	{name: "hvals", args: "KEY"},

	{name: "lindex", args: "KEY 0"},
	{name: "llen", args: "KEY"},
	{name: "lpush", args: "KEY x"},
	{name: "lrange", args: "KEY 0 0"},
	{name: "lrem", args: "KEY 0 x"},
	{name: "ltrim", args: "KEY 0 0"},
	{name: "rpoplpush", args: "KEY KEY"},
	{name: "rpush", args: "KEY x"},

	{name: "sadd", args: "KEY x"},
	{name: "scard", args: "KEY"},
	{name: "sismember", args: "KEY x"},
	{name: "smembers", args: "KEY"},
	{name: "smismember", args: "KEY x"},
	{name: "srem", args: "KEY x"},
	{name: "sscan", args: "KEY 0"},

	{name: "zadd", args: "KEY 0 x"},
	{name: "zcard", args: "KEY"},
	{name: "zcount", args: "KEY 0 1"},
	{name: "zmscore", args: "KEY x"},
	{name: "zrange", args: "KEY 0 0"},
	{name: "zrangebyscore", args: "KEY 0 0"},
	{name: "zrem", args: "KEY x"},
	{name: "zremrangebyrank", args: "KEY 0 0"},
	{name: "zremrangebyscore", args: "KEY 0 0"},
	{name: "zrevrange", args: "KEY 0 0"},
	{name: "zscan", args: "KEY 0"},
	{name: "zscore", args: "KEY x"},

	{name: "memory|usage", args: "KEY", optional: "the size of queues in Asynq's pages"},

	{name: "discard", optional: "this check"}, // the last: it ends the transaction of the check
}

// ACL returns the rules of a user with the smallest set of permissions for the namespace of this prefix, on a server that reports info.
// The password is not among them.
func ACL(prefix string, info *cache.Info) string {
	var rules []string
	for _, p := range permissions {
		if p.exists(info) {
			rules = append(rules, p.rule(prefix))
		}
	}
	return strings.Join(rules, " ")
}

func (p permission) exists(info *cache.Info) bool { return p.minor == 0 || info.AtLeast(7, p.minor) }

func (p permission) isPattern() bool {
	return strings.HasPrefix(p.name, "~") || strings.HasPrefix(p.name, "&")
}

// rule returns the permission as ACL SETUSER takes it.
func (p permission) rule(prefix string) string {
	if p.isPattern() {
		return strings.ReplaceAll(p.name, "PREFIX", prefix)
	}
	return "+" + p.name
}

// command returns a command that is refused without the permission.
func (p permission) command(prefix string) []any {
	text := p.args
	if !p.isPattern() {
		text = strings.ReplaceAll(p.name, "|", " ") + " " + text
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "KEY", "{PREFIXaw:check}"), "PREFIX", prefix)
	words := strings.Fields(text)
	command := make([]any, len(words))
	for i, word := range words {
		command[i] = word
	}
	return command
}

// checkPermissions finds out what the user of REDIS_URL may not do on a server.
func checkPermissions(ctx context.Context, node redis.Cmdable, info *cache.Info, prefix, name string) Finding {
	name += " permissions"
	missing, err := missingPermissions(ctx, node, info, prefix)
	if err != nil {
		return unchecked(name, err)
	}
	rule := "ACL SETUSER afterwrite reset on >PASSWORD " + ACL(prefix, info)
	if len(missing) == 0 {
		return Finding{
			Name: name, Status: OK, Detail: "this user may do what afterwrite needs; for a user that may do only that: " + rule,
		}
	}
	f := Finding{Name: name, Status: Warning, Fix: rule}
	lacks := make([]string, len(missing))
	for i, p := range missing {
		lacks[i] = p.rule(prefix)
		if p.optional == "" {
			f.Status = Refused
		} else {
			lacks[i] += " (for " + p.optional + ")"
		}
	}
	f.Detail = "this user lacks " + strings.Join(lacks, ", ")
	return f
}

// missingPermissions sends every command inside a transaction that it then discards: Redis refuses a command without permission when it
// queues it. So nothing runs and nothing is changed.
func missingPermissions(ctx context.Context, node redis.Cmdable, info *cache.Info, prefix string) ([]permission, error) {
	client, ok := node.(interface{ EphemeralConn() *redis.Conn })
	if !ok {
		return nil, errors.New("the client has no connections of its own")
	}
	conn := client.EphemeralConn() // it does not connect again, so all commands are inside the transaction
	defer func() { _ = conn.Close() }()
	switch err := conn.Do(ctx, "multi").Err(); {
	case denied(err):
		return []permission{{name: "multi", optional: "this check"}}, nil
	case err != nil:
		return nil, fmt.Errorf("begin a transaction: %w", err)
	}
	pipe := conn.Pipeline()
	replies := make(map[string]*redis.Cmd, len(permissions))
	for _, p := range permissions {
		if p.name != "multi" && p.exists(info) {
			replies[p.name] = pipe.Do(ctx, p.command(prefix)...)
		}
	}
	_, err := pipe.Exec(ctx) // discard is the last of them
	var answer redis.Error
	if err != nil && !errors.As(err, &answer) {
		return nil, fmt.Errorf("check permissions: %w", err)
	}
	var missing []permission
	for _, p := range permissions {
		if reply, sent := replies[p.name]; sent && denied(reply.Err()) {
			missing = append(missing, p)
		}
	}
	return missing, nil
}

func denied(err error) bool { return cache.Denial(err) == "NOPERM" }
