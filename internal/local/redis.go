package local

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// socketPathMax is the maximum length of a unix socket's path: 104 bytes with the NUL on macOS and the BSDs, 108 on Linux (unix(7)).
const socketPathMax = 103

// RedisOptions configure a private redis-server. Only Dir is required.
type RedisOptions struct {
	// Dir is the folder of the data, the socket and the password. It is created if missing.
	Dir string
	// Socket selects a unix socket in Dir instead of a TCP port, unless its path would be too long.
	Socket bool
	// Port on 127.0.0.1; 0 chooses a free one.
	Port int
	// AppendOnly enables the append-only file, so that the data survives Kill. Without it and without Save, the data is lost at
	// Stop.
	AppendOnly bool
	// AppendFsync is "everysec" (the default) or "always".
	AppendFsync string
	// Save are the snapshot rules, such as "60 1000"; empty means none.
	Save string
	// Databases is the number of databases; 0 means 16.
	Databases int
	// Password of a TCP port; empty means a random one that is kept in Dir.
	Password string
	// Open selects a TCP port without a password.
	Open bool
	// Args are further settings, such as "--maxmemory", "64mb". They override all others.
	Args []string
	// File keeps the settings in Dir/redis.conf, which Redis may rewrite (CONFIG REWRITE; Sentinel does so in a failover). It holds the
	// settings above and Lines, except Args. StartRedis writes it, and a later Start reads what Redis has made of it.
	File bool
	// Lines are further lines of that file, in the syntax of redis.conf.
	Lines []string
	// Log gets the server's output. It may be nil. Calls come from one goroutine of this package.
	Log io.Writer
	// Program is redis-server; empty means $AFTERWRITE_REDIS_SERVER, then PATH.
	Program string
}

// Redis is a private redis-server.
type Redis struct {
	server

	opts     RedisOptions
	program  string
	socket   string // empty: TCP
	password string // TCP only: the folder's mode protects a socket
}

// StartRedis starts a private redis-server and blocks until it answers PING, at most until ctx is done or for 60 s. Its
// maxmemory-policy is noeviction.
//
// Errors: ErrNotInstalled, ErrNotWritable, ErrLocked, ErrPortTaken (if opts.Port is set), ErrExited.
func StartRedis(ctx context.Context, opts RedisOptions) (*Redis, error) {
	program, err := findRedis(opts.Program)
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(opts.Dir, nil)
	if err != nil {
		return nil, err
	}

	r := &Redis{opts: opts, program: program}
	r.server = server{
		name: "redis-server", dir: dir, port: opts.Port, prepare: r.prepare, ping: r.ping,
	}
	if path := filepath.Join(dir, "redis.sock"); opts.Socket && len(path) <= socketPathMax {
		r.socket, r.port = path, 0
	} else if r.password = opts.Password; r.password == "" && !opts.Open {
		if r.password, err = keptPassword(dir, nil); err != nil {
			return nil, err
		}
	}

	if r.socket == "" && r.port == 0 {
		err = r.startAnywhere(ctx)
	} else {
		err = r.Start(ctx)
	}
	if err != nil {
		return nil, err
	}
	r.settled.Store(true)
	return r, nil
}

// URL returns the URL of database 0 for redis.ParseURL: redis://:password@127.0.0.1:port/0 or unix:///path?db=0.
func (r *Redis) URL() string { return r.DatabaseURL(0) }

// DatabaseURL returns the URL of database n.
func (r *Redis) DatabaseURL(n int) string {
	if r.socket != "" {
		u := url.URL{Scheme: "unix", Path: r.socket, RawQuery: fmt.Sprintf("db=%d", n)}
		return u.String()
	}
	u := url.URL{Scheme: "redis", User: r.user(), Host: address(r.port), Path: fmt.Sprintf("/%d", n)}
	return u.String()
}

func (r *Redis) user() *url.Userinfo {
	if r.password == "" {
		return nil
	}
	return url.UserPassword("", r.password)
}

// Addr returns the address to dial: host:port, or the path of the socket.
func (r *Redis) Addr() string { return cmp.Or(r.socket, address(r.port)) }

func (r *Redis) prepare(ctx context.Context) (Program, error) {
	pidFile := filepath.Join(r.dir, "redis.pid")
	if err := waitForOrphan(ctx, pidFile, filepath.Base(r.program), r.dir); err != nil {
		return Program{}, err
	}
	if r.socket == "" && checkPort(r.port) != nil {
		return Program{}, portTaken(r.name, r.port)
	}

	// If the data is persistent, an orphan must save it before it ends.
	orphanSignal := syscall.SIGKILL
	if r.opts.AppendOnly || r.opts.Save != "" {
		orphanSignal = syscall.SIGTERM
	}
	settings, source := r.config(pidFile), "-" // "-": settings are read from stdin, since `ps` would show the password
	if r.opts.File {
		var err error
		if source, err = r.keptFile(settings); err != nil {
			return Program{}, err
		}
	}
	return Program{
		Path: r.program,
		Args: append([]string{source}, r.opts.Args...),
		Dir:  r.dir,
		Env:  append(os.Environ(), "LC_ALL=C"), Stdin: strings.NewReader(settings), Log: r.opts.Log,
		OrphanSignal: orphanSignal,
	}, nil
}

// keptFile returns the path of Dir/redis.conf. It writes the settings to it, unless StartRedis has returned: then Redis may have rewritten
// the file.
func (r *Redis) keptFile(settings string) (string, error) {
	path := filepath.Join(r.dir, "redis.conf")
	if r.settled.Load() {
		return path, nil
	}
	if err := os.WriteFile(path, []byte(settings+strings.Join(r.opts.Lines, "\n")+"\n"), 0o600); err != nil {
		return "", notWritable(r.dir, err)
	}
	return path, nil
}

// config returns the server's configuration in the syntax of redis.conf.
func (r *Redis) config(pidFile string) string {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s %s\n", name, quote(value)) }

	set("daemonize", "no")
	set("dir", r.dir)
	set("pidfile", pidFile)
	set("databases", strconv.Itoa(cmp.Or(r.opts.Databases, 16)))
	set("maxmemory-policy", "noeviction")
	if r.opts.Save != "" {
		b.WriteString("save " + r.opts.Save + "\n")
	} else {
		set("save", "")
	}
	set("appendonly", yesNo(r.opts.AppendOnly))
	set("appendfsync", cmp.Or(r.opts.AppendFsync, "everysec"))
	set("bind", loopback)
	if r.socket != "" {
		set("port", "0")
		set("unixsocket", r.socket)
		set("unixsocketperm", "700")
	} else {
		set("port", strconv.Itoa(r.port))
		if r.password != "" {
			set("requirepass", r.password)
		}
	}
	return b.String()
}

// ping sends one PING. A server that is still loading its data answers with an error.
func (r *Redis) ping(ctx context.Context) error {
	opts, err := redis.ParseURL(r.URL())
	if err != nil {
		return err
	}
	// The client logs refused connections, so check first whether the server listens.
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, opts.Network, opts.Addr)
	if err != nil {
		return err
	}
	_ = conn.Close()

	opts.MaxRetries = -1
	opts.DialerRetries = 1
	opts.PoolSize = 1
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(opts)
	defer client.Close()
	return client.Ping(ctx).Err()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// quote quotes a value for redis.conf.
func quote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}
