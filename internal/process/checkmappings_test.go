package process

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const twoMappings = `
mappings:
  - {name: post-likes, key: "post:{id:int}:likes", table: blog.posts, where: {id: "{id}"}, set: likes}
  - {name: daily-views, key: "views:{post:int}:{day:date}", table: blog.days, where: {post: "{post}", day: "{day}"}, set: views}
`

// mappingsFile writes a file of mappings and returns its path.
func mappingsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// withMappings returns the checks of Postgres at address and of a Redis, for a process that needs twoMappings.
func withMappings(t *testing.T, address string) Checks {
	t.Helper()
	s, err := Connect(config.Config{RedisURL: localtest.RedisURL(t), DatabaseURL: address, Shards: 16, Mappings: mappingsFile(t, twoMappings)},
		slog.New(slog.DiscardHandler), Pools{Redis: 2, Postgres: 2})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	checks := s.Checks()
	checks.RequireMappings = true
	return checks
}

const createPosts = "CREATE SCHEMA blog; CREATE TABLE blog.posts (id int PRIMARY KEY, likes int)"

func TestEachMappingHasAFinding(t *testing.T) {
	t.Parallel()
	address := localtest.PostgresURL(t, migrated)
	execute(t.Context(), t, address, createPosts)
	checks := withMappings(t, address)

	findings := checks.Run(t.Context())

	require.Equal(t, Finding{
		Name: "postgres mapping post-likes", Status: OK, Detail: "post:{id:int}:likes lands in blog.posts.likes",
	}, find(t, findings, "postgres mapping post-likes"))
	require.Equal(t, Finding{
		Name: "postgres mapping daily-views", Status: Refused, Detail: "the table blog.days does not exist",
		Fix: "create it, or correct table in the file",
	}, find(t, findings, "postgres mapping daily-views"))
}

func TestProcessDoesNotStartIfAMappingDoesNotFit(t *testing.T) {
	t.Parallel()
	address := localtest.PostgresURL(t, migrated)
	execute(t.Context(), t, address, createPosts)
	checks := withMappings(t, address)

	err := checks.atStart(t.Context(), slog.New(slog.DiscardHandler))

	require.EqualError(t, err, "refusing to start: postgres mapping daily-views: the table blog.days does not exist: "+
		"create it, or correct table in the file")

	var log bytes.Buffer
	checks.RequireMappings = false
	require.NoError(t, checks.atStart(t.Context(), slog.New(slog.NewTextHandler(&log, nil))))
	require.Contains(t, log.String(), "the table blog.days does not exist")

	execute(t.Context(), t, address, "CREATE TABLE blog.days (post int, day date, views int, PRIMARY KEY (post, day))")
	checks.RequireMappings = true
	require.NoError(t, checks.atStart(t.Context(), slog.New(slog.DiscardHandler)))
}

func TestProcessWithMappingsStartsWithoutPostgres(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer

	require.NoError(t, withMappings(t, "postgres://me@127.0.0.1:1/x").atStart(t.Context(), slog.New(slog.NewTextHandler(&log, nil))))

	require.Contains(t, log.String(), "start it, or correct DATABASE_URL")
}

func TestFileOfMappingsThatCannotBeUsedIsAnErrorOfOneLine(t *testing.T) {
	t.Parallel()
	read := func(path string) error {
		_, err := Connect(config.Config{DatabaseURL: "postgres://me@127.0.0.1:1/x", Mappings: path},
			slog.New(slog.DiscardHandler), Pools{Postgres: 1})
		return err
	}
	missing := filepath.Join(t.TempDir(), "none.yaml")
	require.ErrorContains(t, read(missing), "AFTERWRITE_MAPPINGS: ")
	require.ErrorContains(t, read(missing), missing)

	bad := mappingsFile(t, `
mappings:
  - {name: a, key: "a:{id:int}", table: posts, where: {id: "{id}"}, set: likes, colour: red}
  - {name: b, key: "b:{id:int}", table: posts, where: {id: "{id}"}, set: views, missing: maybe}
`)
	err := read(bad)
	require.ErrorContains(t, err, "AFTERWRITE_MAPPINGS: the mappings in "+bad+" are not valid: a ")
	require.ErrorContains(t, err, `"colour"`)
	require.ErrorContains(t, err, `; b `)
	require.ErrorContains(t, err, `"maybe"`)
	require.NotContains(t, err.Error(), "\n")
}

func TestFileOfMappingsIsNotReadWithoutPostgres(t *testing.T) {
	t.Parallel()
	s, err := Connect(config.Config{RedisURL: localtest.RedisURL(t), Mappings: "/nowhere"}, slog.New(slog.DiscardHandler), Pools{Redis: 1})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.Nil(t, s.Mappings)
}
