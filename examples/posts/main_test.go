package main

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/command"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// programVariable makes the test binary the program afterwrite, for the tutorial.
const programVariable = "POSTS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	localtest.Main(m, localapi.Leaks()...)
}

// bundle is the service on a database of its own.
type bundle struct {
	http.Handler

	db       *sql.DB
	counters *client.Client
}

func setup(t *testing.T, url string) bundle {
	t.Helper()
	db, err := sql.Open("postgres", localtest.PostgresURL(t, nil))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	schema, err := os.ReadFile("schema.sql")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), string(schema))
	require.NoError(t, err)
	counters, err := client.New(url, client.Options{Attempts: 1})
	require.NoError(t, err)
	t.Cleanup(counters.Close)
	return bundle{service(db, counters), db, counters}
}

func (b bundle) send(method, path string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	b.ServeHTTP(answer, httptest.NewRequest(method, path, nil))
	return answer
}

func (b bundle) flip(t *testing.T, enabled bool) {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), `UPDATE switches SET enabled = $1`, enabled)
	require.NoError(t, err)
}

func TestTheSwitchSaysWhereAWriteGoes(t *testing.T) {
	t.Parallel()
	b := setup(t, localapi.Start(t, localapi.Options{}))
	require.JSONEq(t, `{"likes":21}`, b.send(http.MethodPost, "/posts/2/like").Body.String())
	require.Contains(t, b.send(http.MethodGet, "/posts/2").Body.String(), `"likes":21,`)
	require.Contains(t, b.send(http.MethodGet, "/posts/2").Body.String(), `"views":2}`)

	b.flip(t, true) // this afterwrite has no mappings: its counters begin at 0
	require.JSONEq(t, `{"likes":1}`, b.send(http.MethodPost, "/posts/2/like").Body.String())
	require.Contains(t, b.send(http.MethodGet, "/posts/2").Body.String(), `"views":1}`)
	counter, err := b.counters.Get(t.Context(), "post:2:likes")
	require.NoError(t, err)
	require.EqualValues(t, 1, counter.Value)
	require.Contains(t, b.send(http.MethodGet, "/posts").Body.String(), `{"id":2,"title":"Post 2","likes":21}`, "from the table")
}

func TestWritesThatCannotBeCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, "http://127.0.0.1:1")
	for _, enabled := range []bool{false, true} {
		b.flip(t, enabled)
		for _, id := range []string{"101", "x"} {
			require.Equal(t, http.StatusNotFound, b.send(http.MethodPost, "/posts/"+id+"/like").Code)
			require.Equal(t, http.StatusNotFound, b.send(http.MethodGet, "/posts/"+id).Code)
		}
	}
	require.Equal(t, http.StatusServiceUnavailable, b.send(http.MethodPost, "/posts/1/like").Code, "afterwrite is away")
	require.Contains(t, b.send(http.MethodGet, "/posts").Body.String(), `{"id":1,"title":"Post 1","likes":10}`, "it did not count elsewhere")
}
