package local

import (
	"context"
	"database/sql"
	"errors"
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
	databaseName  = "afterwrite" // made on first use
	databaseUser  = "afterwrite" // superuser of this private server
	clusterName   = "data"       // the folder in Dir that postgres calls its data directory
	pidName       = "postmaster.pid"
	blockStillOn  = "pre-existing shared memory block" // a killed server's backends still end
	anotherLaunch = `lock file "` + pidName + `" already exists`
)

// PostgresOptions says how to run postgres. Only Dir is required.
type PostgresOptions struct {
	// Dir holds the data and the password; it is created if missing. See Postgres.Dir for where it may really be.
	Dir string
	// Port on 127.0.0.1; 0 picks a free one.
	Port int
	// Fsync keeps what was committed through a crash of the MACHINE. Tests leave it off, with synchronous_commit and
	// full_page_writes: several times faster, and the data still survives Kill. Everything else wants it on.
	Fsync bool
	// MaxConnections; 0 means 100.
	MaxConnections int
	// Args are further arguments of postgres, which win over all others, such as "-c", "log_statement=all".
	Args []string
	// Log gets the server's output. It may be nil. Calls come from one goroutine of this package.
	Log io.Writer
	// BinDir holds postgres and initdb; empty means $AFTERWRITE_POSTGRES_BIN, then PATH, then where packages put them.
	BinDir string
}

// Postgres is a private postgres server.
type Postgres struct {
	server

	opts     PostgresOptions
	binDir   string
	password string
	cred     *syscall.Credential // whom the server runs as; nil: the user of this process
}

// StartPostgres starts a private postgres and blocks until it answers queries: at most until ctx is done, or 60 s. The
// first start in a folder makes the data (UTF8, byte order) and the database `afterwrite`: about a second.
//
// As root it runs as the user `postgres`. Where that user cannot reach Dir, the data is in
// /var/lib/afterwrite-<hash>/postgres, and Dir is a symbolic link to it.
//
// Errors: ErrNotInstalled, ErrNotWritable, ErrLocked, ErrPortTaken (for a Port that was asked for), ErrNoUser, ErrVersion, ErrExited.
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	cred, err := postgresUser(opts.Dir)
	if err != nil {
		return nil, err
	}
	// Before the folder: without the program there is no reason to leave one behind.
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

// URL is the address of the database `afterwrite`, as lib/pq takes it:
// postgres://afterwrite:password@127.0.0.1:port/afterwrite?sslmode=disable.
func (p *Postgres) URL() string { return p.DatabaseURL(databaseName) }

// DatabaseURL is the address of another database of the server.
func (p *Postgres) DatabaseURL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(databaseUser, p.password), Host: address(p.port), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr is what to dial: host:port.
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
		// "Immediate" shutdown: ends the backends too and gives back the shared memory, which SIGKILL would not.
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
		// Files of the data folder, which go with it: what Kill leaves of the default, /dev/shm, would stay there.
		set("dynamic_shared_memory_type", "mmap")
	}
	return append(args, p.opts.Args...)
}

// postgresEnv is the environment without PG*, which would change the server's defaults, and with English messages.
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

// createDatabase makes the database `afterwrite`, unless it is there.
func (p *Postgres) createDatabase(ctx context.Context) error {
	return p.withDatabase("postgres", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(databaseName))
		if refused, ok := errors.AsType[*pq.Error](err); ok && refused.Code == "42P04" { // duplicate_database
			return nil
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

// killedRemains: the backends of a killed server need a moment to end.
func killedRemains(err error) bool {
	text := err.Error()
	return strings.Contains(text, blockStillOn) || strings.Contains(text, anotherLaunch)
}
