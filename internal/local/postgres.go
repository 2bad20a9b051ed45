package local

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lib/pq"
)

const (
	databaseName  = "afterwrite" // created at the first start
	databaseUser  = "afterwrite" // superuser of this private server
	clusterName   = "data"       // postgres's data directory in Dir
	pidName       = "postmaster.pid"
	blockStillOn  = "pre-existing shared memory block" // backends of a killed server are still ending
	anotherLaunch = `lock file "` + pidName + `" already exists`
)

// PostgresOptions configure a private postgres. Only Dir is required.
type PostgresOptions struct {
	// Dir is the folder of the data and the password. It is created if missing. Postgres.Dir may be another folder.
	Dir string
	// Port on 127.0.0.1; 0 chooses a free one.
	Port int
	// Fsync makes commits survive a crash of the MACHINE. Without it, synchronous_commit and full_page_writes are off too, which is
	// several times faster; data still survives Kill. Only tests should do without it.
	Fsync bool
	// MaxConnections; 0 means 100.
	MaxConnections int
	// Args are further arguments of postgres, such as "-c", "log_statement=all". They override all others.
	Args []string
	// Log gets the server's output. It may be nil. Calls come from one goroutine of this package.
	Log io.Writer
	// BinDir is the folder of postgres and initdb; empty means $AFTERWRITE_POSTGRES_BIN, then PATH, then the usual places.
	BinDir string
}

// Postgres is a private postgres server.
type Postgres struct {
	server

	opts     PostgresOptions
	binDir   string
	password string
	cred     *syscall.Credential // the server's user; nil: the user of this process
}

// StartPostgres starts a private postgres and blocks until it answers queries, at most until ctx is done or for 60 s. The first start
// in a folder creates the data (UTF8, byte order) and the database `afterwrite`, in about a second.
//
// Root runs it as the user `postgres`. If that user cannot access opts.Dir, the data is in /var/lib/afterwrite-<hash>/postgres, and
// opts.Dir is a symbolic link to it.
//
// Errors: ErrNotInstalled, ErrNotWritable, ErrLocked, ErrPortTaken (if opts.Port is set), ErrNoUser, ErrVersion, ErrExited.
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	cred, err := postgresUser(opts.Dir)
	if err != nil {
		return nil, err
	}
	// Find the program before creating the folder, so that a failure leaves no folder behind.
	binDir, err := findPostgres(ctx, opts.BinDir, clusterMajor(opts.Dir))
	if err != nil {
		return nil, err
	}
	dir, err := makePostgresDir(opts.Dir, cred)
	if err != nil {
		return nil, err
	}

	password, err := keptPassword(dir, cred)
	if err != nil {
		return nil, err
	}

	p := &Postgres{opts: opts, binDir: binDir, password: password, cred: cred}
	p.server = server{
		name: "postgres", dir: dir, port: opts.Port, prepare: p.prepare, ping: p.ping, passing: killedRemains,
	}
	if p.port == 0 {
		err = p.startAnywhere(ctx)
	} else {
		err = p.Start(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := p.createDatabase(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	p.settled.Store(true)
	return p, nil
}

// URL returns the URL of the database `afterwrite` for lib/pq:
// postgres://afterwrite:password@127.0.0.1:port/afterwrite?sslmode=disable.
func (p *Postgres) URL() string { return p.DatabaseURL(databaseName) }

// DatabaseURL returns the URL of another database of the server.
func (p *Postgres) DatabaseURL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(databaseUser, p.password), Host: address(p.port), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr returns the address to dial, host:port.
func (p *Postgres) Addr() string { return address(p.port) }

func (p *Postgres) prepare(ctx context.Context) (Program, error) {
	cluster := filepath.Join(p.dir, clusterName)
	if err := waitForOrphan(ctx, filepath.Join(cluster, pidName), "postgres", cluster); err != nil {
		return Program{}, err
	}
	if checkPort(p.port) != nil {
		return Program{}, portTaken(p.name, p.port)
	}
	if err := p.initCluster(ctx, cluster); err != nil {
		return Program{}, err
	}
	return Program{
		Path: filepath.Join(p.binDir, "postgres"), Args: p.args(cluster), Dir: p.dir, Env: postgresEnv(), cred: p.cred, Log: p.opts.Log,
		StopSignal: syscall.SIGINT, // "fast" shutdown, which does not wait for clients
		// "Immediate" shutdown. Unlike SIGKILL, it ends the backends and frees the shared memory.
		OrphanSignal: syscall.SIGQUIT,
	}, nil
}

func (p *Postgres) args(cluster string) []string {
	args := []string{"-D", cluster}
	set := func(name, value string) { args = append(args, "-c", name+"="+value) }

	set("listen_addresses", loopback)
	set("port", strconv.Itoa(p.port))
	set("unix_socket_directories", "")
	set("logging_collector", "off")
	set("cluster_name", databaseName)
	if p.opts.MaxConnections > 0 {
		set("max_connections", strconv.Itoa(p.opts.MaxConnections))
	}
	if !p.opts.Fsync {
		set("fsync", "off")
		set("synchronous_commit", "off")
		set("full_page_writes", "off")
		// Shared memory in files of the data folder, which is removed later. In /dev/shm, the default, they would stay after Kill.
		set("dynamic_shared_memory_type", "mmap")
	}
	return append(args, p.opts.Args...)
}

// postgresEnv returns the environment without PG* variables, which would change the server's defaults, and with English messages.
func postgresEnv() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") {
			env = append(env, entry)
		}
	}
	return append(env, "LC_ALL=C")
}

func (p *Postgres) ping(ctx context.Context) error {
	return p.withDatabase("postgres", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "SELECT 1")
		return err
	})
}

// createDatabase creates the database `afterwrite` if it does not exist.
func (p *Postgres) createDatabase(ctx context.Context) error {
	return p.withDatabase("postgres", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(databaseName))
		if pq.As(err, "42P04", "25006") != nil { // duplicate_database; a standby, which has its primary's
			err = nil
		}
		if err != nil {
			return fmt.Errorf("create the database %s: %w", databaseName, err)
		}
		return nil
	})
}

func (p *Postgres) withDatabase(name string, do func(*sql.DB) error) error {
	db, err := sql.Open("postgres", p.DatabaseURL(name))
	if err != nil {
		return err
	}
	defer db.Close()
	return do(db)
}

// killedRemains reports whether a start failed because backends of a killed server have not ended yet.
func killedRemains(err error) bool {
	text := err.Error()
	return strings.Contains(text, blockStillOn) || strings.Contains(text, anotherLaunch)
}
