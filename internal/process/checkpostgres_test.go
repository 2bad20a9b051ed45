package process

import (
	"context"
	"database/sql"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

func migrated(url string) error { return store.MigrateURL(context.Background(), url) }

func openStore(t *testing.T, url string) *store.Store {
	t.Helper()
	s, err := store.Open(url, store.Options{Logger: slog.New(slog.DiscardHandler), MaxConns: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func execute(ctx context.Context, t *testing.T, url string, statements ...string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	for _, statement := range statements {
		_, err := db.ExecContext(ctx, statement)
		require.NoError(t, err)
	}
}

// findingsOf returns the findings about Postgres.
func findingsOf(t *testing.T, postgres Postgres) []Finding {
	t.Helper()
	return checkPostgres(t.Context(), postgres, nil)
}

func TestFitPostgresIsOK(t *testing.T) {
	t.Parallel()
	findings := findingsOf(t, openStore(t, localtest.PostgresURL(t, migrated)))

	require.Len(t, findings, 3)
	require.Equal(t, OK, Worst(findings), "%v", findings)
}

func TestMissingTableIsRefusedWithTheCommandToRun(t *testing.T) {
	t.Parallel()
	f := find(t, findingsOf(t, openStore(t, localtest.PostgresURL(t, nil))), "postgres schema")

	require.Equal(t, Refused, f.Status)
	require.Equal(t, "run `afterwrite migrate`", f.Fix)
}

func TestPendingMigrationsAreAWarning(t *testing.T) {
	t.Parallel()
	postgres := &fakePostgres{info: healthy(), pending: 2}

	f := find(t, findingsOf(t, postgres), "postgres schema")

	require.Equal(t, Warning, f.Status)
	require.Equal(t, "2 migrations are pending", f.Detail)
	require.Equal(t, "run `afterwrite migrate`", f.Fix)
}

func TestMissingGrantsAreRefused(t *testing.T) {
	t.Parallel()
	admin := localtest.PostgresURL(t, migrated)
	execute(t.Context(), t, admin, "CREATE ROLE doctor_stranger LOGIN PASSWORD 'x'")
	t.Cleanup(func() { execute(context.Background(), t, admin, "DROP ROLE doctor_stranger") })
	parsed, err := url.Parse(admin)
	require.NoError(t, err)
	parsed.User = url.UserPassword("doctor_stranger", "x")

	f := find(t, findingsOf(t, openStore(t, parsed.String())), "postgres schema")

	require.Equal(t, Refused, f.Status)
	require.Contains(t, f.Fix, "GRANT SELECT, INSERT, UPDATE, DELETE ON afterwrite.counters TO doctor_stranger;")
}

func TestReadOnlyPostgresIsRefused(t *testing.T) {
	t.Parallel()
	address := localtest.PostgresURL(t, migrated)
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	execute(t.Context(), t, address, "ALTER DATABASE "+parsed.Path[1:]+" SET default_transaction_read_only = on")

	f := find(t, findingsOf(t, openStore(t, address)), "postgres")

	require.Equal(t, Refused, f.Status)
	require.Contains(t, f.Detail, "read-only")
}

func TestPostgresThatDoesNotAnswerIsRefusedWithoutThePassword(t *testing.T) {
	t.Parallel()
	findings := findingsOf(t, openStore(t, "postgres://me:hunter2@127.0.0.1:1/x"))

	require.Len(t, findings, 1)
	require.Equal(t, Refused, findings[0].Status)
	require.Contains(t, findings[0].Fix, "DATABASE_URL")
	require.NotContains(t, findings[0].String(), "hunter2")
}

func TestSeveralHostsWithoutATargetAreAWarning(t *testing.T) {
	t.Parallel()
	info := healthy()
	info.Address, info.AnyHost = "db1:5432", true

	f := checkServer(info)

	require.Equal(t, Warning, f.Status)
	require.Contains(t, f.Detail, "at db1:5432")
	require.Contains(t, f.Fix, "target_session_attrs=read-write")
}

func TestStandbysAndOldVersionsAreRefused(t *testing.T) {
	t.Parallel()
	standby, old := healthy(), healthy()
	standby.InRecovery = true
	old.VersionNumber, old.Version = 110022, "11.22"

	require.Equal(t, OK, checkServer(healthy()).Status)
	require.Equal(t, Refused, checkServer(standby).Status)
	require.Contains(t, checkServer(standby).Detail, "standby")
	require.Equal(t, Refused, checkServer(old).Status)
	require.Contains(t, checkServer(old).Fix, "PostgreSQL 12")
}

func healthy() store.Info {
	return store.Info{Version: "15.8", VersionNumber: 150008, Now: time.Now()}
}

// fakePostgres simulates states that are hard to produce with a real Postgres.
type fakePostgres struct {
	info    store.Info
	pending int
}

func (f *fakePostgres) Info(context.Context) (store.Info, error) { return f.info, nil }

func (f *fakePostgres) PendingMigrations(context.Context) (int, error) { return f.pending, nil }

func (*fakePostgres) Replica(context.Context) (store.ReplicaInfo, error) {
	return store.ReplicaInfo{}, nil
}

func (*fakePostgres) MissingGrants(context.Context) ([]string, error) { return nil, nil }

func (*fakePostgres) CheckMappings(context.Context) ([]store.MappingProblem, error) { return nil, nil }

func (f *fakePostgres) Read(context.Context, []counter.Key) (map[counter.Key]counter.Row, error) {
	return map[counter.Key]counter.Row{}, nil
}
