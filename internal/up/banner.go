package up

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// exampleKey is the counter in the example commands. It has a colon to show its percent-encoding.
const exampleKey counter.Key = "page:home"

// banner lists the addresses and some example commands. It contains no password, and its lines have no prefix, so that they can
// be copied.
func (u *up) banner() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "\nafterwrite is up. Ctrl-C stops it; counters are kept.")
	fmt.Fprintln(&b)
	for _, p := range u.addresses {
		what := ""
		switch p.process {
		case "dashboard":
			what = "  (queues: /asynq)"
		case "worker", "scheduler":
			what = "  (/metrics, /readyz)"
		}
		if p.redis {
			what = "  (the Redis protocol)"
		}
		fmt.Fprintf(&b, "  %-*s  %s%s\n", nameWidth, p.process, p.url(), what)
	}
	fmt.Fprintln(&b, "\nTry it:")
	fmt.Fprintf(&b, "  curl -X POST %s/v1/counters/%s/increment\n",
		u.addresses[0].url(), strings.ReplaceAll(string(exampleKey), ":", "%3A"))
	fmt.Fprintf(&b, "  %s INCRBY %s 1\n", u.addresses[len(u.addresses)-1].redisCLI(), exampleKey)
	fmt.Fprintf(&b, "  %s -c 'TABLE %s.counters LIMIT 10'\n", u.psql(), u.Config.Schema)
	fmt.Fprintf(&b, "  %s GET '{%saw:%s}:c:%s'\n\n", u.redisCLI(), u.Config.Prefix(), exampleKey.Shard(u.Config.Shards), exampleKey)
	return b.Bytes()
}

// psql returns the psql command without a statement. It reads the password of the private server from its file.
func (u *up) psql() string {
	postgres := u.servers.postgres
	if postgres == nil {
		return `psql "$DATABASE_URL"`
	}
	host, port, _ := strings.Cut(postgres.Addr(), ":")
	return fmt.Sprintf(`PGPASSWORD="$(cat %s)" psql -h %s -p %s -U afterwrite -d afterwrite`,
		shellQuote(passwordFile(postgres.Dir())), host, port)
}

func (u *up) redisCLI() string {
	redis := u.servers.redis
	if redis == nil {
		return `redis-cli -u "$REDIS_URL"`
	}
	if filepath.IsAbs(redis.Addr()) {
		return "redis-cli -s " + shellQuote(redis.Addr())
	}
	_, port, _ := strings.Cut(redis.Addr(), ":")
	return fmt.Sprintf(`REDISCLI_AUTH="$(cat %s)" redis-cli -p %s`, shellQuote(passwordFile(redis.Dir())), port)
}

// passwordFile returns the file in which package local keeps a server's password, mode 0600.
func passwordFile(dir string) string { return filepath.Join(dir, "password") }

// shellQuote quotes a path for a shell, if necessary.
func shellQuote(path string) string {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' ||
			'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
