package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// keyring returns a Keyring for entries "name:scopes" or "name:scopes:prefix". The name is also the key.
func keyring(t testing.TB, perSec int, entries ...string) *auth.Keyring {
	t.Helper()
	ring, err := auth.New(auth.Options{Keys: keysOf(t, entries...), AdminToken: token, OperationsPerSec: perSec})
	require.NoError(t, err)
	return ring
}

// keysOf returns the keys of keyring.
func keysOf(t testing.TB, entries ...string) []auth.Key {
	t.Helper()
	for i, entry := range entries {
		name, rest, _ := strings.Cut(entry, ":")
		sum := sha256.Sum256([]byte(name))
		entries[i] = name + ":" + hex.EncodeToString(sum[:]) + ":" + rest
	}
	keys, err := auth.ParseList(strings.Join(entries, ","))
	require.NoError(t, err)
	return keys
}

// setupKeys is setup with keys: one of each scope, one of all, and one with the prefix team1/.
func setupKeys(t *testing.T, perSec int) *bundle {
	t.Helper()
	b := setup(t)
	options := b.adminOptions()
	lists := catalog.New(catalog.Options{Cache: b.Cache, Store: b.Store, Counters: b.service})
	options.Flusher, options.Lister, options.Historian = options.Operator, lists, lists
	options.Keys = keyring(t, perSec, "reader:read", "writer:write", "operator:admin", "all:read+write+admin", "team:read+write:team1/")
	b.serve(t, b.service, options)
	return b
}

// keyed are the operations that need a key: the scope, the success, and the requests for a counter. %s is the encoded key, or in a body
// the key.
var keyed = []struct {
	method, path, body string
	scope              string
	status             int
}{
	{"GET", "/v1/counters/%s", "", "read", 200},
	{"HEAD", "/v1/counters/%s", "", "read", 200},
	{"GET", "/v1/counters/%s/history", "", "read", 200},
	{"HEAD", "/v1/counters/%s/history", "", "read", 200},
	{"PUT", "/v1/counters/%s", `{"value":7}`, "write", 200},
	{"POST", "/v1/counters/%s/increment", "", "write", 200},
	{"POST", "/v1/batch", `{"operations":[{"op":"increment","key":"%s"}]}`, "write", 200},
	{"POST", stream, `{"op":"increment","key":"%s"}`, "write", 200},
	{"GET", "/v1/counters?prefix=%s", "", "read", 200},
	{"HEAD", "/v1/counters?prefix=%s", "", "read", 200},
	{"GET", "/v1/top?prefix=%s", "", "read", 404}, // it is not enabled
	{"POST", "/v1/read", `{"keys":["%s"]}`, "read", 200},
	{"POST", "/v1/flush", `{"keys":["%s"]}`, "write", 202},
	{"DELETE", "/v1/counters/%s", "", "write", 204},
	{"GET", "/v1/admin/dead", "", "admin", 200},
	{"HEAD", "/v1/admin/dead", "", "admin", 200},
	{"GET", "/v1/admin/dead/%s", "", "admin", 404},
	{"HEAD", "/v1/admin/dead/%s", "", "admin", 404},
	{"DELETE", "/v1/admin/dead/%s", "", "admin", 404},
	{"POST", "/v1/admin/dead/redrive", `{"keys":["%s"]}`, "admin", 200},
}

// mediaType returns the header for a request to path.
func mediaType(path string) string {
	if path == stream {
		return ndjson
	}
	return "Content-Type: application/json"
}

// Each key sends each operation, for a counter inside and one outside of its prefix. Refused requests change nothing.
func TestAccess(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	for _, caller := range []struct {
		name, scopes, prefix string
		headers              []string
	}{
		{name: "nobody"},
		{name: "a wrong key", headers: []string{"Authorization: Bearer wrong"}},
		{name: "another scheme", headers: []string{"Authorization: Basic all"}},
		{name: "two keys", headers: []string{"Authorization: Bearer all", "Authorization: Bearer all"}},
		{name: "the hash of a key", headers: []string{"Authorization: Bearer " + hexSum("all")}},
		{name: "reader", scopes: "read", headers: []string{"Authorization: Bearer reader"}},
		{name: "writer", scopes: "write", headers: []string{"Authorization: Bearer writer"}},
		{name: "operator", scopes: "admin", headers: []string{"Authorization: Bearer operator"}},
		{name: "the admin token", scopes: "admin", headers: []string{authorized}},
		{name: "all", scopes: "read+write+admin", headers: []string{"Authorization: Bearer all"}},
		{name: "team", scopes: "read+write", prefix: "team1/", headers: []string{"Authorization: Bearer team"}},
	} {
		for _, key := range []string{"team1/a", "team10/a", "team1"} {
			b.send(t, http.MethodPut, "/v1/counters/"+encoded(key), `{"value":1}`, "Authorization: Bearer all")
			for _, o := range keyed {
				before := b.state(t)
				a := b.send(t, o.method, strings.ReplaceAll(o.path, "%s", encoded(key)), strings.ReplaceAll(o.body, "%s", key),
					append([]string{"Prefer: wait=0", mediaType(o.path)}, caller.headers...)...)
				what := fmt.Sprintf("%s: %s %s of %s: %s", caller.name, o.method, o.path, key, a.text)
				want, code := o.status, ""
				switch {
				case o.path == stream && strings.Contains(caller.scopes, o.scope) && !strings.HasPrefix(key, caller.prefix):
					require.Equal(t, http.StatusOK, a.StatusCode, what)
					require.Contains(t, a.text, `"code":"forbidden"`, "only the line fails")
					require.Equal(t, before, b.state(t), what)
					continue
				case caller.scopes == "":
					want, code = http.StatusUnauthorized, "unauthorized"
					require.Equal(t, `Bearer realm="afterwrite"`, a.Header.Get("WWW-Authenticate"), what)
				case !strings.Contains(caller.scopes, o.scope), !strings.HasPrefix(key, caller.prefix):
					want, code = http.StatusForbidden, "forbidden"
					require.Empty(t, a.Header.Get("WWW-Authenticate"), what)
				}
				require.Equal(t, want, a.StatusCode, what)
				if code == "" {
					continue
				}
				require.Equal(t, before, b.state(t), what)
				if o.method != http.MethodHead {
					require.Equal(t, code, a.problem(t).Code, what)
				}
			}
		}
	}
	require.NotContains(t, b.log.String(), hexSum("all"))
}

func hexSum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func encoded(key string) string { return strings.ReplaceAll(key, "/", "%2F") }

func TestEveryRouteDeclaresItsScope(t *testing.T) {
	t.Parallel()
	scopes := api.Scopes()
	for _, r := range api.Routes() {
		line := r.Method + " " + r.Path
		if r.Method == http.MethodHead {
			line = http.MethodGet + " " + r.Path
		}
		require.NotZero(t, scopes[line], "%s has no scope in the table of routes", line)
	}
	for line, scope := range scopes {
		method, path, _ := strings.Cut(line, " ")
		item := loadDocument(t).Paths.Value(strings.NewReplacer(":key", "{key}", ":code", "{code}", ":file", "{file}").Replace(path))
		require.NotNil(t, item, line)
		operation := item.GetOperation(method)
		if scope == auth.Public {
			require.NotNil(t, operation.Security, line)
			require.Empty(t, *operation.Security, "%s needs no key", line)
			continue
		}
		require.Nil(t, operation.Security, "%s needs a key", line)
		require.Equal(t, scope.String(), operation.Extensions["x-scope"], line)
		for _, status := range []int{401, 403, 429} {
			require.NotNil(t, operation.Responses.Status(status), "%s: %d", line, status)
		}
	}
}

// The access table has every route that needs a key, so a new route needs a line there.
func TestAccessTableHasEveryRoute(t *testing.T) {
	t.Parallel()
	tried := make(map[string]bool)
	for _, o := range keyed {
		path, _, _ := strings.Cut(o.path, "?")
		tried[o.method+" "+strings.ReplaceAll(path, "%s", ":key")] = true
	}
	for line, scope := range api.Scopes() {
		require.Equal(t, scope != auth.Public, tried[line], line)
	}
}

func TestPublicRoutesNeedNoKey(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 1)
	for range 5 {
		for _, target := range []string{"/healthz", "/readyz", "/metrics", "/problems/forbidden", "/docs", "/v1/openapi.yaml"} {
			require.Equal(t, http.StatusOK, b.send(t, http.MethodGet, target, "").StatusCode, target)
		}
		require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/nothing", "").StatusCode)
	}
}

func TestBatchOfAKeyWithAPrefixCarriesOutItsOwnPart(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	a := b.send(t, http.MethodPost, batch, operations(
		`{"op":"set","key":"team1/a","value":5}`, `{"op":"set","key":"team2/a","value":5}`, `{"op":"increment","key":"team1/a","by":2}`,
		`{"op":"delete","key":"other"}`, `{"op":"set","key":"","value":1}`), "Authorization: Bearer team", "Idempotency-Key: once")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	var got struct {
		Results []struct {
			Value *int64   `json:"value"`
			Error *problem `json:"error"`
		} `json:"results"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &got))
	var codes []string
	for _, r := range got.Results {
		if r.Error != nil {
			codes = append(codes, r.Error.Code)
			continue
		}
		codes = append(codes, strconv.FormatInt(*r.Value, 10))
	}
	require.Equal(t, []string{"5", "forbidden", "7", "forbidden", "invalid_key"}, codes)
	for _, key := range []string{"team2%2Fa", "other"} {
		require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/"+key, "", "Authorization: Bearer all").StatusCode)
	}

	a = b.send(t, http.MethodPost, batch, operations(`{"op":"set","key":"a","value":5}`, `{"op":"delete","key":"b"}`), "Authorization: Bearer team")
	require.Equal(t, http.StatusForbidden, a.StatusCode)
	require.Equal(t, "forbidden", a.problem(t).Code)
}

func TestReadOfAKeyWithAPrefixHasItsOwnPart(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	for _, key := range []string{"team1%2Fa", "team2%2Fa"} {
		b.send(t, http.MethodPut, "/v1/counters/"+key, `{"value":1}`, "Authorization: Bearer all")
	}
	a := b.send(t, http.MethodPost, "/v1/read", `{"keys":["team2/a","team1/a","team2/none"]}`, "Authorization: Bearer team")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, 2, strings.Count(a.text, `"code":"forbidden"`), "it does not tell which of them exist")
	require.Equal(t, 1, strings.Count(a.text, `"value":1`))
}

func TestListOfAKeyWithAPrefixHasItsOwnCounters(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	for _, key := range []string{"team1/a", "team1/b", "team10/a", "team2/a"} {
		b.insertRow(t, key, 1, 1)
	}
	for query, want := range map[string][]string{
		"": {"team1/a", "team1/b"}, "?prefix=": {"team1/a", "team1/b"}, "?prefix=team1/": {"team1/a", "team1/b"}, "?prefix=team1/b": {"team1/b"},
		"?limit=1&cursor=" + cursorTo("team1/a"): {"team1/b"},
	} {
		a := b.send(t, http.MethodGet, "/v1/counters"+query, "", "Authorization: Bearer team")
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.Equal(t, want, a.page(t).keys(), query)
	}
	for query, status := range map[string]int{
		"?prefix=team": 403, "?prefix=team2/": 403, "?prefix=team10/": 403, "?cursor=" + cursorTo("team0"): 400,
	} {
		require.Equal(t, status, b.send(t, http.MethodGet, "/v1/counters"+query, "", "Authorization: Bearer team").StatusCode, query)
	}
}

func cursorTo(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func TestFlushOfAKeyWithAPrefixNamesItsCounters(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	for body, status := range map[string]int{
		"": 403, "{}": 403, `{"keys":["team1/a","team2/a"]}`: 403, `{"keys":["team1/a"]}`: 200,
	} {
		require.Equal(t, status, b.send(t, http.MethodPost, "/v1/flush", body, "Authorization: Bearer team").StatusCode, body)
	}
	require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, "/v1/flush", "", "Authorization: Bearer writer").StatusCode)
}

func TestAdminPathsExistWhileAKeyHasTheirScope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	options := b.adminOptions()
	without, err := auth.ParseList("reader:" + hexSum("reader") + ":read")
	require.NoError(t, err)
	with, err := auth.ParseList("operator:" + hexSum("operator") + ":admin")
	require.NoError(t, err)
	options.Keys, err = auth.New(auth.Options{Keys: without})
	require.NoError(t, err)
	b.serve(t, b.service, options)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, dead, "", "Authorization: Bearer reader").StatusCode)
	require.NoError(t, options.Keys.Replace(with))
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, dead, "", "Authorization: Bearer reader").StatusCode)
	require.Equal(t, http.StatusOK, b.send(t, http.MethodGet, dead, "", "Authorization: Bearer operator").StatusCode)
}

// With a burst of 2, each operation is refused after two others. Nothing of a refused request is applied.
func TestRateIsPerKeyAndPerOperation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	options := b.adminOptions()
	lists := catalog.New(catalog.Options{Cache: b.Cache, Store: b.Store, Counters: b.service})
	options.Flusher, options.Lister, options.Historian = options.Operator, lists, lists
	for _, o := range keyed {
		options.Keys = keyring(t, 1, "all:read+write+admin", "other:read")
		b.serve(t, b.service, options)
		if !strings.HasPrefix(o.path, "/v1/admin") {
			b.send(t, http.MethodPut, "/v1/counters/a", `{"value":1}`, "Authorization: Bearer all")
		}
		for {
			before := b.state(t)
			a := b.send(t, o.method, strings.ReplaceAll(o.path, "%s", "a"), strings.ReplaceAll(o.body, "%s", "a"),
				"Authorization: Bearer all", "Prefer: wait=0", mediaType(o.path))
			require.Equal(t, "2", a.Header.Get("Ratelimit-Limit"), o.path)
			if a.StatusCode != http.StatusTooManyRequests {
				continue
			}
			require.Equal(t, before, b.state(t), o.path)
			require.Equal(t, "1", a.Header.Get("Retry-After"))
			require.Equal(t, "0", a.Header.Get("Ratelimit-Remaining"))
			require.Equal(t, "2", a.Header.Get("Ratelimit-Reset"))
			if o.method != http.MethodHead {
				require.Equal(t, "rate_limited", a.problem(t).Code)
			}
			break
		}
		a := b.send(t, http.MethodGet, "/v1/counters/b", "", "Authorization: Bearer other")
		require.Equal(t, http.StatusNotFound, a.StatusCode, "another key has a rate of its own")
		require.Equal(t, "1", a.Header.Get("Ratelimit-Remaining"))
	}
}

// Otherwise nobody would bound the bodies of 8 MiB that a key sends in vain.
func TestInvalidBodiesCostAnOperation(t *testing.T) {
	t.Parallel()
	for _, path := range []string{batch, "/v1/read"} {
		b := setupKeys(t, 1)
		for left := 1; left >= 0; left-- {
			a := b.send(t, http.MethodPost, path, `{"operations":`, "Authorization: Bearer all")
			require.Equal(t, http.StatusBadRequest, a.StatusCode, a.text)
			require.Equal(t, strconv.Itoa(left), a.Header.Get("Ratelimit-Remaining"))
		}
		a := b.send(t, http.MethodPost, path, `{"operations":`, "Authorization: Bearer all")
		require.Equal(t, http.StatusTooManyRequests, a.StatusCode, a.text)
	}
}

func TestBatchCostsItsOperations(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 2)
	list := func(n int) string {
		return operations(strings.Split(strings.Repeat(`{"op":"increment","key":"a"}|`, n), "|")[:n]...)
	}

	before := b.state(t)
	a := b.send(t, http.MethodPost, batch, list(5), "Authorization: Bearer all")
	require.Equal(t, http.StatusTooManyRequests, a.StatusCode)
	require.Contains(t, a.problem(t).Detail, "the request has 5 operations, but the API key all may send at most 4 at once: send fewer")
	require.Equal(t, before, b.state(t))
	a = b.send(t, http.MethodPost, batch, list(4), "Authorization: Bearer all")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Equal(t, "0", a.Header.Get("Ratelimit-Remaining"))
	a = b.send(t, http.MethodPost, batch, list(2), "Authorization: Bearer all")
	require.Equal(t, http.StatusTooManyRequests, a.StatusCode)
}

func TestRequestsAreCountedByKey(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{Counter: counter.Counter{Version: 1, Exists: true, Known: true}}), api.Options{
		Keys: keyring(t, 0, "web:read", "app:read+write"),
	})
	for range 3 {
		b.send(t, http.MethodGet, "/v1/counters/a", "", "Authorization: Bearer web")
	}
	b.send(t, http.MethodPut, "/v1/counters/a", `{"value":1}`, "Authorization: Bearer web")
	b.send(t, http.MethodGet, "/v1/counters/a", "", "Authorization: Bearer wrong")
	b.send(t, http.MethodGet, "/healthz", "")
	text := b.send(t, http.MethodGet, "/metrics", "").text
	for _, line := range []string{
		`afterwrite_api_requests_total{key="web"} 4`, `afterwrite_api_requests_total{key="app"} 0`,
		`afterwrite_api_requests_total{key=""} 1`, `afterwrite_api_requests_total{key="admin"} 0`,
		`afterwrite_rejected_total{reason="forbidden"} 1`, `afterwrite_rejected_total{reason="unauthorized"} 1`,
	} {
		require.Contains(t, text, line)
	}
	n, err := testutil.GatherAndCount(b.registry, "afterwrite_api_requests_total")
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

func TestHeaderBombsAreRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{Keys: keyring(t, 0, "web:read")})
	for _, headers := range [][]string{
		{"Authorization: Bearer " + strings.Repeat("x", 1<<20)},
		strings.Split(strings.Repeat("Authorization: Bearer web\n", 100_000)+"X: 1", "\n"),
	} {
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, b.sendRaw(t, requestText(http.MethodGet, "/v1/counters/a", "", headers...)).StatusCode)
	}
	almost := "Authorization: Bearer " + strings.Repeat("x", 15<<10)
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, "/v1/counters/a", "", almost).StatusCode)
	require.Equal(t, http.StatusUnauthorized, b.send(t, http.MethodGet, "/v1/counters/a", "",
		strings.Split(strings.Repeat("Authorization: Bearer web\n", 300)+"X: 1", "\n")...).StatusCode)
}
