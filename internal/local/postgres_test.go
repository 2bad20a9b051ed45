package local_test

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
)

func TestPostgresKeepsDataThroughStopKillAndStart(t *testing.T) {
	t.Parallel()
	for name, fsync := range map[string]bool{"fsync": true, "no fsync": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			p := startPostgres(t, local.PostgresOptions{Dir: dataDir(t), Fsync: fsync, MaxConnections: 20})
			db := database(t, p)
			at, done := p.URL(), p.Done()
			_, err := db.ExecContext(ctx, "CREATE TABLE t (n int)")
			require.NoError(t, err)
			insert := func(n int) {
				_, err := db.ExecContext(ctx, "INSERT INTO t VALUES ($1)", n)
				require.NoError(t, err)
			}
			count := func() (n int) {
				require.NoError(t, db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n))
				return n
			}

			insert(1)
			require.NoError(t, p.Stop(ctx))
			requireEnded(t, done)
			require.Error(t, db.PingContext(ctx))
			require.NoError(t, p.Start(ctx))
			require.Equal(t, at, p.URL())
			require.Equal(t, 1, count())

			if fsync { // without it synchronous_commit is off, and Kill may lose the last commits
				for round := range 3 {
					insert(2)
					p.Kill()
					require.ErrorIs(t, p.Err(), local.ErrExited)
					require.NoError(t, p.Start(ctx))
					require.NoError(t, openAndPing(t, p.URL())) // db.Ping would fail on its broken connection
					require.Equal(t, round+2, count())
				}
			}
		})
	}
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	p := startPostgres(t, local.PostgresOptions{Dir: dataDir(t), MaxConnections: 21, Args: []string{"-c", "work_mem=5MB"}})
	db := database(t, p)
	for name, want := range map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "21", "work_mem": "5MB",
		"server_encoding": "UTF8", "lc_collate": "C",
	} {
		var got string
		require.NoError(t, db.QueryRowContext(ctx, "SHOW "+name).Scan(&got))
		require.Equal(t, want, got, name)
	}
}

func TestPostgresRequiresThePassword(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, local.PostgresOptions{Dir: dataDir(t)})
	info, err := os.Stat(filepath.Join(p.Dir(), "password"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	u, err := url.Parse(p.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	require.Len(t, password, 26)

	u.User = url.UserPassword("afterwrite", "guess")
	require.ErrorContains(t, openAndPing(t, u.String()), "password authentication failed")
	require.NoError(t, openAndPing(t, p.URL()))
}

func TestPostgresStartsOverAStalePidFile(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	p := startPostgres(t, local.PostgresOptions{Dir: dataDir(t)})
	pidFile := filepath.Join(p.Dir(), "data", "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.NoError(t, p.Stop(ctx))

	// The ID belongs to another program of the same user, as may happen in a restarted container.
	_, rest, _ := strings.Cut(string(text), "\n")
	require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o600))
	require.NoError(t, p.Start(ctx))
}

func TestPostgresStartsAfterAnInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	p := startPostgres(t, local.PostgresOptions{Dir: dir})
	require.NoError(t, p.Stop(bounded(t)))
	cluster := filepath.Join(p.Dir(), "data")
	require.NoError(t, os.Rename(cluster, cluster+".new"))

	p = startPostgres(t, local.PostgresOptions{Dir: dir})
	require.NoError(t, openAndPing(t, p.URL()))
}

func TestPostgresMovesItsDataIfItsUserHasNoAccess(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs postgres as another user")
	}
	ctx := bounded(t)
	wanted := filepath.Join(t.TempDir(), "postgres") // below a folder of mode 0700
	p := startPostgres(t, local.PostgresOptions{Dir: wanted})
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(p.Dir())) })
	require.True(t, strings.HasPrefix(p.Dir(), "/var/lib/afterwrite-"), p.Dir())
	link, err := os.Readlink(wanted)
	require.NoError(t, err)
	require.Equal(t, p.Dir(), link)
	_, err = database(t, p).ExecContext(ctx, "CREATE TABLE kept ()")
	require.NoError(t, err)
	require.NoError(t, p.Stop(ctx))

	again := startPostgres(t, local.PostgresOptions{Dir: wanted})
	require.Equal(t, p.Dir(), again.Dir())
	_, err = database(t, again).ExecContext(ctx, "SELECT FROM kept")
	require.NoError(t, err)
}

func TestPostgresPortTaken(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()

	_, err = local.StartPostgres(bounded(t), local.PostgresOptions{Dir: dataDir(t), Port: listener.Addr().(*net.TCPAddr).Port})
	require.ErrorIs(t, err, local.ErrPortTaken)
	requireOneLine(t, err)
}

func TestErrorOfAFailedPostgresShowsItsLog(t *testing.T) {
	t.Parallel()
	_, err := local.StartPostgres(bounded(t), local.PostgresOptions{Dir: dataDir(t), Args: []string{"-c", "no_such_setting=1"}})
	require.ErrorIs(t, err, local.ErrExited)
	require.ErrorContains(t, err, "no_such_setting")
}

func TestPostgresNotInstalled(t *testing.T) {
	t.Parallel()
	_, err := local.StartPostgres(bounded(t), local.PostgresOptions{Dir: dataDir(t), BinDir: "/no/such/folder"})
	require.ErrorIs(t, err, local.ErrNotInstalled)
	require.ErrorContains(t, err, "`make deps`")
	requireOneLine(t, err)
}

func TestPostgresDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600))
	_, err := local.StartPostgres(bounded(t), local.PostgresOptions{Dir: dir})
	require.ErrorIs(t, err, local.ErrVersion)
	require.ErrorContains(t, err, "PostgreSQL 9,")
	requireOneLine(t, err)
}

func TestPostgresFolderInUse(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	startPostgres(t, local.PostgresOptions{Dir: dir})
	_, err := local.StartPostgres(bounded(t), local.PostgresOptions{Dir: dir})
	require.ErrorIs(t, err, local.ErrLocked)
	requireOneLine(t, err)
}
