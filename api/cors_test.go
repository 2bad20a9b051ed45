package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// corsHeaders returns the names of the CORS headers of an answer.
func corsHeaders(a *answer) (names []string) {
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			names = append(names, name)
		}
	}
	return names
}

const fromPage = "Origin: https://app.example"

func preflight(method string) []string {
	return []string{fromPage, "Access-Control-Request-Method: " + method, "Access-Control-Request-Headers: authorization,content-type,prefer"}
}

func TestWithoutOriginsThereAreNoCORSHeaders(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{Keys: keyring(t, 0, "web:read")})
	for _, a := range []*answer{
		b.send(t, http.MethodOptions, set, "", preflight("PUT")...),
		b.send(t, http.MethodGet, set, "", fromPage),
		b.send(t, http.MethodGet, "/healthz", "", fromPage),
	} {
		require.Empty(t, corsHeaders(a))
	}
}

func TestPreflightsNeedNoKey(t *testing.T) {
	t.Parallel()
	for _, origins := range [][]string{{"https://app.example"}, {"https://other.example:8443", "https://app.example"}, {"*"}} {
		b := serve(t, always(counter.Result{}), api.Options{Keys: keyring(t, 0, "web:read+write"), CORSOrigins: origins})
		a := b.send(t, http.MethodOptions, set, "", preflight("PUT")...)
		require.Equal(t, http.StatusNoContent, a.StatusCode)
		want := "https://app.example"
		if origins[0] == "*" {
			want = "*"
		}
		require.Equal(t, want, a.Header.Get("Access-Control-Allow-Origin"))
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			require.Contains(t, a.Header.Get("Access-Control-Allow-Methods"), method)
		}
		for _, name := range []string{"Authorization", "Content-Type", "Prefer", "Idempotency-Key", "If-Match"} {
			require.Contains(t, strings.Split(a.Header.Get("Access-Control-Allow-Headers"), ","), name)
		}
		require.Equal(t, "7200", a.Header.Get("Access-Control-Max-Age"))
		require.Empty(t, a.Header.Get("Access-Control-Allow-Credentials"), "cookies are not permitted")

		for _, headers := range [][]string{{fromPage}, {fromPage, "Authorization: Bearer web"}} {
			a = b.send(t, http.MethodPut, set, `{"value":1}`, headers...)
			require.Equal(t, want, a.Header.Get("Access-Control-Allow-Origin"), "also in the answer 401, so that the page can read it")
			for _, name := range []string{"ETag", "Retry-After", "RateLimit-Remaining", "X-Request-Id", "Preference-Applied"} {
				require.Contains(t, strings.Split(a.Header.Get("Access-Control-Expose-Headers"), ","), name)
			}
		}
	}
}

func TestOtherOriginsGetNoCORSHeaders(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{Keys: keyring(t, 0, "web:read"), CORSOrigins: []string{"https://app.example"}})
	for _, origin := range []string{
		"null", "https://evil.example", "http://app.example", "https://app.example:8443", "https://app.example.evil", "https://xapp.example",
		"https://sub.app.example", "*",
	} {
		for _, a := range []*answer{
			b.send(t, http.MethodOptions, set, "", "Origin: "+origin, "Access-Control-Request-Method: PUT"),
			b.send(t, http.MethodGet, set, "", "Origin: "+origin, "Authorization: Bearer web"),
		} {
			require.Empty(t, corsHeaders(a), origin)
			require.Contains(t, a.Header.Values("Vary"), "Origin")
		}
	}
	a := b.send(t, http.MethodOptions, set, "")
	require.Contains(t, a.Header.Get("Allow"), "PUT", "without a page, OPTIONS is as ever")
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodOptions, "/nothing", "").StatusCode)
}
