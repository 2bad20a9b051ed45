package api_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/operate"
)

const (
	token      = "correct-horse-battery"
	authorized = "Authorization: Bearer " + token
	dead       = "/v1/admin/dead"
)

// setupAdmin is setup with the admin routes enabled.
func setupAdmin(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.serve(t, b.service, b.adminOptions())
	return b
}

func (b *bundle) adminOptions() api.Options {
	return api.Options{Keys: tokenOnly(), Operator: operate.New(operate.Options{
		Cache: b.Cache, Store: b.Store, Redis: b.Redis, Logger: slog.New(slog.DiscardHandler),
	})}
}

// tokenOnly returns a Keyring whose only key is the admin token.
func tokenOnly() *auth.Keyring {
	keys, err := auth.New(auth.Options{AdminToken: token})
	if err != nil {
		panic(err)
	}
	return keys
}

// admin sends a request with the token.
func (b *bundle) admin(t *testing.T, method, target, body string, headers ...string) *answer {
	t.Helper()
	return b.send(t, method, target, body, append(headers, authorized)...)
}

// adminRequests has one request for each admin route, and its body.
var adminRequests = map[string]string{
	"GET " + dead: "", "HEAD " + dead: "", "GET " + dead + "/a": "", "DELETE " + dead + "/a": "", "POST " + dead + "/redrive": `{"all":true}`,
}

func TestAdminPathsAnswer404WithoutAToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bury(t, "a")
	before := b.state(t)
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		for _, header := range []string{"X-Nothing: 1", "Authorization: Bearer ", "Authorization: Bearer x"} {
			require.Equal(t, http.StatusNotFound, b.send(t, method, target, body, header).StatusCode, line)
		}
	}
	require.Equal(t, before, b.state(t))
}

func TestAdminPathsRequireTheToken(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	before := b.state(t)
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		for _, headers := range [][]string{
			nil,
			{"Authorization:"},
			{"Authorization: Bearer"},
			{"Authorization: Bearer "},
			{"Authorization: " + token},
			{"Authorization: Basic " + token},
			{authorized + "x"},
			{strings.TrimSuffix(authorized, "y")},
			{"Authorization: Bearer " + strings.ToUpper(token)},
			{authorized, authorized},
			{"Authorization: Bearer x", authorized},
			{"Cookie: token=" + token},
			{authorized + ", Basic x"},
			{"Proxy-" + authorized},
		} {
			a := b.send(t, method, target, body, headers...)
			require.Equal(t, http.StatusUnauthorized, a.StatusCode, "%s %v", line, headers)
			require.Equal(t, `Bearer realm="afterwrite"`, a.Header.Get("WWW-Authenticate"))
			if method != http.MethodHead {
				require.Equal(t, "unauthorized", a.problem(t).Code)
			}
		}
	}
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, dead+"?token="+token, "").StatusCode)
	require.Equal(t, before, b.state(t))
	require.NotContains(t, b.log.String(), token)

	for _, header := range []string{authorized, "authorization: bearer " + token, "Authorization: BEARER   " + token} {
		require.Equal(t, http.StatusOK, b.send(t, http.MethodGet, dead, "", header).StatusCode, header)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodHead, dead, "").StatusCode)
}

func TestBadAdminRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	before := b.state(t)
	long := `"` + strings.Repeat(`a","`, api.MaxRedrive) + `a"`
	for _, c := range []badRequest{
		{method: "GET", target: dead + "?limit=0", status: 400, code: "invalid_query", detail: "1 to 500"},
		{method: "GET", target: dead + "?limit=501", status: 400, code: "invalid_query", detail: `"501"`},
		{method: "GET", target: dead + "?limit=", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?limit=1.0", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?limit=99999999999999999999", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?cursor=", status: 400, code: "invalid_query", detail: "the page before"},
		{method: "GET", target: dead + "?cursor=x", status: 400, code: "invalid_query"},
		{method: "GET", target: dead + "?cursor=LTE6YQ", status: 400, code: "invalid_query"}, // -1:a
		{method: "GET", target: dead + "?cursor=MTo", status: 400, code: "invalid_query"},    // 1:
		{method: "GET", target: dead + "?cursor=" + strings.Repeat("YQ", 2000), status: 400, code: "invalid_query", detail: `..`},
		{method: "GET", target: dead + "/%00", status: 400, code: "invalid_key"},
		{method: "GET", target: dead + "/", status: 404, code: "not_found"},
		{method: "GET", target: dead + "/a/b", status: 404, code: "not_found"},
		{method: "DELETE", target: dead + "/%FF", status: 400, code: "invalid_key"},
		{method: "DELETE", target: dead + "/" + longestKey + "k", status: 400, code: "invalid_key"},
		{method: "DELETE", target: dead + "/b", status: 404, code: "not_found"},
		{method: "DELETE", target: dead, status: 405, code: "method_not_allowed", detail: "GET"},
		{method: "PUT", target: dead + "/a", body: `{"value":1}`, status: 405, code: "method_not_allowed"},
		{method: "POST", target: dead + "/a", body: `{"all":true}`, status: 405, code: "method_not_allowed"},
		{method: "POST", target: dead + "/redrive", status: 400, code: "invalid_body", detail: "empty"},
		{method: "POST", target: dead + "/redrive", body: `{}`, status: 400, code: "invalid_body", detail: "either"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"keys":["a"]}`, status: 400, code: "invalid_body", detail: "either"},
		{method: "POST", target: dead + "/redrive", body: `{"all":false}`, status: 400, code: "invalid_body", detail: "all must be true"},
		{method: "POST", target: dead + "/redrive", body: `{"all":"true"}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":1}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":null}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"all":true}`, status: 400, code: "invalid_body", detail: "twice"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true}{}`, status: 400, code: "invalid_body", detail: "data after"},
		{method: "POST", target: dead + "/redrive", body: `{"all":true,"wait":true}`, status: 400, code: "unknown_field", detail: `"wait"`},
		{method: "POST", target: dead + "/redrive", body: `{"ALL":true}`, status: 400, code: "unknown_field"},
		{method: "POST", target: dead + "/redrive", body: `["a"]`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":[]}`, status: 400, code: "invalid_body", detail: "1 to 1000"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":null}`, status: 400, code: "invalid_body", detail: "null"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":"a"}`, status: 400, code: "invalid_body"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a",5]}`, status: 400, code: "invalid_key"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a",""]}`, status: 400, code: "invalid_key", detail: "empty"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":["a"`, status: 400, code: "invalid_body", detail: "too early"},
		{method: "POST", target: dead + "/redrive", body: `{"keys":[` + long + `]}`, status: 400, code: "too_many_operations", detail: "1000"},
		{method: "POST", target: dead + "/redrive", body: mib + `{"all":true}`, status: 413, code: "body_too_large"},
		{
			method: "POST", target: dead + "/redrive", body: `{"all":true}`, headers: []string{"Content-Type: text/plain"},
			status: 415, code: "unsupported_media_type",
		},
	} {
		c.name = c.method + " " + c.target + " " + c.body[:min(len(c.body), 60)]
		c.headers = append(c.headers, authorized)
		a := b.sendRaw(t, c.request())
		require.Equal(t, c.status, a.StatusCode, "%s: %s", c.name, a.text)
		require.Equal(t, c.code, a.problem(t).Code, c.name)
		require.Contains(t, a.problem(t).Detail, c.detail, c.name)
		require.Equal(t, before, b.state(t), c.name)
	}
}

func TestAdminWithoutPostgresReadsAndRedrivesOnly(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	require.NoError(t, b.Store.Close())

	for _, target := range []string{dead, dead + "/a"} {
		a := b.admin(t, http.MethodGet, target, "")
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Contains(t, a.text, `"postgres":{"state":"unknown"`)
	}
	before := b.state(t)
	a := b.admin(t, http.MethodDelete, dead+"/a", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "database_unavailable", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "nothing was discarded")
	require.Equal(t, before, b.state(t))
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodPost, dead+"/redrive", `{"keys":["a"]}`).StatusCode)
}

func TestAdminWithoutRedisIsUnavailable(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	b.bury(t, "a")
	operator := operate.New(operate.Options{
		Cache: cache.New(unreachable(t), cache.Options{Shards: 4, CleanTTL: time.Hour}), Store: b.Store, Redis: unreachable(t),
		Logger: slog.New(slog.DiscardHandler),
	})
	b.serve(t, b.service, api.Options{Keys: tokenOnly(), Operator: operator})
	for line, body := range adminRequests {
		method, target, _ := strings.Cut(line, " ")
		a := b.admin(t, method, target, body)
		require.Equal(t, http.StatusServiceUnavailable, a.StatusCode, line)
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		if method != http.MethodHead {
			require.Equal(t, "cache_unavailable", a.problem(t).Code)
			require.NotContains(t, a.text, "127.0.0.1")
		}
	}
	require.Contains(t, b.log.String(), "127.0.0.1", "the log has the cause")
}

// A redrive of all keys that runs out of time answers 200 with complete: false. A redrive of named keys answers 503, because its
// client has the keys to repeat.
func TestRedriveThatRunsOutOfTimeIsAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bury(t, "a")
	b.addr = start(t, api.NewWithAdminTimeout(b.service, b.adminOptions(), time.Nanosecond))
	a := b.admin(t, http.MethodPost, dead+"/redrive", `{"all":true}`)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.JSONEq(t, `{"redriven":0,"not_dead":[],"complete":false,"workers":0}`, a.text)
	a = b.admin(t, http.MethodPost, dead+"/redrive", `{"keys":["a"]}`)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Contains(t, a.problem(t).Detail, "it may be repeated")
}

func TestTooManyAdminRequestsAtOnceAreRejected(t *testing.T) {
	t.Parallel()
	b := setupAdmin(t)
	const body = `{"all":true}`
	var waiting []*slowClient
	for range 4 {
		waiting = append(waiting, b.startRequest(t, dead+"/redrive", body, authorized))
	}
	a := b.admin(t, http.MethodGet, dead, "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, dead, "").StatusCode, "a request without the token uses no slot")
	b.put(t, "a", "1")
	for _, c := range waiting {
		require.NoError(t, c.send(len(body)))
		require.Equal(t, http.StatusOK, c.answer(t).StatusCode)
	}
	require.Equal(t, http.StatusOK, b.admin(t, http.MethodGet, dead, "").StatusCode)
}
