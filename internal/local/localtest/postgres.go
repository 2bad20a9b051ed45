package localtest

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/local"
)

// postgresConnections is the limit for all tests of one binary together.
const postgresConnections = 300

// searchPath lets tests use our tables without their schema. The program does not rely on it, which a test of package store checks.
var searchPath = []string{"-c", "search_path=afterwrite,public"}

var sharedPostgres struct {
	once   sync.Once
	dir    string
	server *local.Postgres
	err    error

	databases atomic.Int64 // for their names
	mu        sync.Mutex
	templates map[uintptr]*postgresTemplate // by the function that makes them
}

// postgresTemplate is a database to be copied.
type postgresTemplate struct {
	once sync.Once
	name string
	err  error
}

// PostgresURL returns the URL of a new database in the shared Postgres. It is dropped when the test ends, even if connections are open.
//
// The database is a copy of a template. template fills that once per test binary, for example with the migrations; it gets the
// template's URL and must close its connections. If template is nil, the database is empty.
func PostgresURL(t testing.TB, template func(url string) error) string {
	t.Helper()
	requireMain(t)
	s := &sharedPostgres
	s.once.Do(func() {
		if s.dir, s.err = local.TempDir(dirPattern); s.err != nil {
			return
		}
		s.server, s.err = within(func(ctx context.Context) (*local.Postgres, error) {
			return local.StartPostgres(ctx, local.PostgresOptions{
				Dir: filepath.Join(s.dir, dataName), MaxConnections: postgresConnections, Args: searchPath,
			})
		})
	})
	if s.err != nil {
		t.Fatalf("localtest: %v", s.err)
	}

	from, err := templateFor(template)
	if err != nil {
		t.Fatalf("localtest: prepare the template database: %v", err)
	}
	name := fmt.Sprintf("test_%d", s.databases.Add(1))
	if err := execAdmin(fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, pq.QuoteIdentifier(from))); err != nil {
		t.Fatalf("localtest: create a database: %v\n%s", err, s.server.LastLog())
	}
	t.Cleanup(func() {
		if err := execAdmin(fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)); err != nil {
			t.Errorf("localtest: drop the database: %v", err)
		}
	})
	return s.server.DatabaseURL(name)
}

// OwnPostgres starts a Postgres for this test only, in about a second, and stops it when the test ends. If opts.Dir is empty, it uses a
// temporary folder. If the test fails, the last lines of the server's log are printed.
func OwnPostgres(t testing.TB, opts local.PostgresOptions) *local.Postgres {
	t.Helper()
	opts.Args = append(slices.Clone(searchPath), opts.Args...)
	return startOwn(t, &opts.Dir, func(ctx context.Context) (*local.Postgres, error) { return local.StartPostgres(ctx, opts) })
}

// Standby starts a streaming replica of primary for this test only, in about a second, and stops it when the test ends.
func Standby(t testing.TB, primary *local.Postgres) *local.Postgres {
	t.Helper()
	opts := local.PostgresOptions{Args: searchPath}
	return startOwn(t, &opts.Dir, func(ctx context.Context) (*local.Postgres, error) { return primary.StartStandby(ctx, opts) })
}

// templateFor returns the name of the template that fill fills. The first call with fill creates it.
func templateFor(fill func(url string) error) (string, error) {
	if fill == nil {
		return "template0", nil
	}
	s := &sharedPostgres
	key := reflect.ValueOf(fill).Pointer()
	s.mu.Lock()
	if s.templates == nil {
		s.templates = make(map[uintptr]*postgresTemplate)
	}
	t := s.templates[key]
	if t == nil {
		t = &postgresTemplate{name: fmt.Sprintf("template_%d", len(s.templates)+1)}
		s.templates[key] = t
	}
	s.mu.Unlock()

	t.once.Do(func() { t.err = makeTemplate(t.name, fill) })
	return t.name, t.err
}

func makeTemplate(name string, fill func(url string) error) error {
	if err := execAdmin("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		return err
	}
	if err := fill(sharedPostgres.server.DatabaseURL(name)); err != nil {
		return err
	}
	// A database with connections cannot be copied. This also protects the template from tests.
	if err := execAdmin("ALTER DATABASE " + name + " ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	return execAdmin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'")
}

// execAdmin runs one statement on a new connection, so that no connection stays open between tests.
func execAdmin(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	db, err := sql.Open("postgres", sharedPostgres.server.DatabaseURL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}
