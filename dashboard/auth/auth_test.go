package auth_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const password = "correct horse battery"

var hash = sync.OnceValue(func() string {
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(b)
})

// plain implements Pages with one line of text each.
type plain struct{}

func (plain) SignIn(w http.ResponseWriter, _ *http.Request, status int, wrong, _ string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, wrong)
}

func (plain) Reject(w http.ResponseWriter, _ *http.Request, status int, why string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why)
}

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// testBundle is a Gate in front of one page.
type testBundle struct {
	gate    *auth.Gate
	handler http.Handler
	last    auth.Identity // of the last visitor
	clock   *clock
	address string // of the next visitor
	log     *localtest.Buffer
}

func setup(t *testing.T, client redis.Cmdable) *testBundle {
	t.Helper()
	return setupPrefix(t, client, "")
}

func setupPrefix(t *testing.T, client redis.Cmdable, prefix string) *testBundle {
	t.Helper()
	b := &testBundle{clock: &clock{now: time.Now()}, address: "198.51.100.7:1", log: new(localtest.Buffer)}
	gate, err := auth.New(auth.Options{
		Address: "0.0.0.0:1", Users: []auth.User{{Name: "olga", Role: auth.Operator, Hash: hash()}},
		Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")},
		Redis:   client, Prefix: prefix, Pages: plain{}, Logger: slog.New(slog.NewTextHandler(b.log, nil)), Now: b.clock.Now,
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /signin", gate.SignIn)
	mux.HandleFunc("POST /signout", gate.SignOut)
	mux.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { b.last = auth.Of(r) })
	b.gate, b.handler = gate, gate.Handler(mux)
	return b
}

func (b *testBundle) do(method, path, cookie string, form url.Values, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.RemoteAddr = b.address
	maps.Copy(r.Header, header)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

func (b *testBundle) signIn(name, password string) *httptest.ResponseRecorder {
	return b.do(http.MethodPost, "/signin", "", url.Values{"name": {name}, "password": {password}}, nil)
}

// session signs in and returns the cookie.
func (b *testBundle) session(t *testing.T) string {
	t.Helper()
	w := b.signIn("olga", password)
	require.Equal(t, http.StatusSeeOther, w.Code)
	pair, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return pair
}

func (b *testBundle) status(cookie string) int {
	return b.do(http.MethodGet, "/", cookie, nil, nil).Code
}

func TestSessionExpiresAfter12Hours(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	cookie := b.session(t)
	b.clock.forward(12*time.Hour - time.Second)
	require.Equal(t, http.StatusOK, b.status(cookie))
	b.clock.forward(time.Second)
	require.Equal(t, http.StatusUnauthorized, b.status(cookie))
}

func TestSessionIsValidInEveryProcessUntilItEnds(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	one, other := setup(t, client), setup(t, client)
	cookie := one.session(t)
	require.Equal(t, http.StatusOK, other.status(cookie))
	require.Equal(t, http.StatusSeeOther, one.do(http.MethodPost, "/signout", cookie, nil, nil).Code)
	require.Equal(t, http.StatusUnauthorized, one.status(cookie))
	require.Equal(t, http.StatusUnauthorized, other.status(cookie))
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
}

func TestSessionsSurviveARedisOutage(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	before := b.session(t)
	require.NoError(t, client.Close())
	require.Equal(t, http.StatusOK, b.status(before), "this process has it in memory")
	during := b.session(t)
	require.Equal(t, http.StatusOK, b.status(during), "this process began it")
	require.Equal(t, http.StatusServiceUnavailable, b.do(http.MethodPost, "/signout", before, nil, nil).Code)
	require.Equal(t, http.StatusUnauthorized, b.status(before), "this process has ended it")
	require.Equal(t, http.StatusUnauthorized, setup(t, client).status(during))
}

func TestSignOutDuringARedisOutageIsRepeated(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	options, err := redis.ParseURL(server.URL())
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	one, other := setup(t, client), setup(t, client)
	localtest.Run(t, func(ctx context.Context) error {
		one.gate.Run(ctx)
		return nil
	})

	cookie := one.session(t)
	require.NoError(t, server.Stop(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, one.do(http.MethodPost, "/signout", cookie, nil, nil).Code)
	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return other.status(cookie) == http.StatusUnauthorized, "the other dashboard still accepts the session"
	})
	require.Equal(t, http.StatusUnauthorized, one.status(cookie))
}

// requireEnds waits until ended is closed.
func requireEnds(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	require.NotNil(t, ended)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the session has not ended")
	}
}

func requireOpen(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	require.NotNil(t, ended)
	select {
	case <-ended:
		require.Fail(t, "the session has ended")
	default:
	}
}

func TestEndedIsClosedWhenASessionEnds(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	first, second, third := b.session(t), b.session(t), b.session(t)
	ended := make(map[string]<-chan struct{})
	for _, cookie := range []string{first, second, third} {
		require.Equal(t, http.StatusOK, b.status(cookie))
		ended[cookie] = b.last.Ended
	}
	require.Equal(t, http.StatusOK, b.status(first))
	require.Equal(t, ended[first], b.last.Ended, "each request gets the same channel")

	require.Equal(t, http.StatusSeeOther, b.do(http.MethodPost, "/signout", first, nil, nil).Code)
	requireEnds(t, ended[first])
	form := url.Values{"name": {"olga"}, "password": {password}}
	require.Equal(t, http.StatusSeeOther, b.do(http.MethodPost, "/signin", second, form, nil).Code, "a new session replaces it")
	requireEnds(t, ended[second])
	requireOpen(t, ended[third])

	later := setup(t, client) // one second before third expires, independent of how long the test has run
	later.clock.forward(b.clock.Now().Add(12*time.Hour - time.Second).Sub(later.clock.Now()))
	require.Equal(t, http.StatusOK, later.status(third))
	requireEnds(t, later.last.Ended)
	requireOpen(t, ended[third])

	require.NoError(t, client.Close())
	require.Equal(t, http.StatusServiceUnavailable, b.do(http.MethodPost, "/signout", third, nil, nil).Code)
	requireEnds(t, ended[third])
}

func TestSignInLimitRefills(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for range 10 {
		require.Equal(t, http.StatusUnauthorized, b.signIn("olga", "wrong").Code)
	}
	refused := b.signIn("olga", password)
	require.Equal(t, http.StatusTooManyRequests, refused.Code)
	require.Equal(t, "6", refused.Header().Get("Retry-After"))
	b.clock.forward(6 * time.Second)
	require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code)
	require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code, "a correct password does not count against the address")
}

func TestForwardedForWithPorts(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	b.address = "10.0.0.1:1"
	try := func(forwarded, password string) int {
		form := url.Values{"name": {"olga"}, "password": {password}}
		return b.do(http.MethodPost, "/signin", "", form, http.Header{"X-Forwarded-For": {forwarded}}).Code
	}
	for range 10 {
		require.Equal(t, http.StatusUnauthorized, try("198.51.100.7:50123", "wrong"))
	}
	require.Equal(t, http.StatusTooManyRequests, try("198.51.100.7:50124", "wrong"))
	require.Equal(t, http.StatusSeeOther, try("198.51.100.8:50123", password))
	require.NotContains(t, b.log.String(), "X-Forwarded-For")

	try("", "wrong")
	try("unknown", "wrong")
	require.Equal(t, 1, strings.Count(b.log.String(), "sends no valid X-Forwarded-For"), "it is logged once")
}

func TestNameIsLimitedAcrossAddresses(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 30 {
		b.address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1).String()
		require.Equal(t, http.StatusUnauthorized, b.signIn("olga", "wrong").Code)
	}
	b.address = "203.0.113.1:1"
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", "wrong").Code)
}

func TestCorrectPasswordsAreLimitedByName(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for range 30 {
		require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code)
	}
	b.address = "203.0.113.1:1"
	refused := b.signIn("olga", password)
	require.Equal(t, http.StatusTooManyRequests, refused.Code)
	require.Equal(t, "5", refused.Header().Get("Retry-After"))
	require.Equal(t, http.StatusUnauthorized, b.signIn("other", password).Code, "the limit is for one name")
	b.clock.forward(5 * time.Second)
	require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code)
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", password).Code)
}

func TestIPv6NetworkSharesALimit(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 10 {
		b.address = "[2001:db8::" + string(rune('1'+i%9)) + "]:1"
		require.Equal(t, http.StatusUnauthorized, b.signIn("olga", "wrong").Code)
	}
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", "wrong").Code)
}

func TestPasswordLongerThan72BytesIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	require.Equal(t, http.StatusUnauthorized, b.signIn("olga", password+strings.Repeat("x", 100)).Code)
	require.Equal(t, http.StatusBadRequest, b.signIn("olga", strings.Repeat("x", 5000)).Code)
}

func TestCookiesAreSecureBehindTLS(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	form := url.Values{"name": {"olga"}, "password": {password}}
	https := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"198.51.100.7"}}

	plain := b.do(http.MethodPost, "/signin", "", form, https).Header().Get("Set-Cookie")
	require.Regexp(t, `^afterwrite=[A-Z2-7]{26}; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax$`, plain, "not from a trusted proxy")
	b.address = "10.0.0.1:1"
	secure := b.do(http.MethodPost, "/signin", "", form, https).Header().Get("Set-Cookie")
	require.Regexp(t, `^__Host-afterwrite=[A-Z2-7]{26}; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Lax$`, secure)

	stolen, _, _ := strings.Cut(plain, ";")
	require.Equal(t, http.StatusUnauthorized, b.do(http.MethodGet, "/", stolen, nil, https).Code, "over TLS, only a cookie that was set over TLS counts")
}

func TestCookieHasTheNamespace(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	shop, bank := setupPrefix(t, client, "shop:"), setupPrefix(t, client, "bank:")
	mine, other := shop.session(t), bank.session(t)
	require.Regexp(t, `^afterwrite-shop=[A-Z2-7]{26}$`, mine)
	both := mine + "; " + other
	require.Equal(t, http.StatusOK, shop.status(both), "the browser sends both cookies to both dashboards")
	require.Equal(t, http.StatusOK, bank.status(both))
	require.Equal(t, http.StatusUnauthorized, bank.status(mine))

	shop.address = "10.0.0.1:1"
	form := url.Values{"name": {"olga"}, "password": {password}}
	https := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"198.51.100.7"}}
	secure := shop.do(http.MethodPost, "/signin", "", form, https).Header().Get("Set-Cookie")
	require.Regexp(t, `^__Host-afterwrite-shop=[A-Z2-7]{26}; `, secure)
}

func TestSignInRedirectsToThisServerOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for next, want := range map[string]string{
		"/dead?q=a": "/dead?q=a", "": "/", "//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "/%2f/evil.example": "/evil.example",
		"javascript:alert(1)": "/", "/signout": "/", "/./signout": "/", "dead": "/", "/a\r\nb": "/",
	} {
		w := b.do(http.MethodPost, "/signin", "", url.Values{"name": {"olga"}, "password": {password}, "next": {next}}, nil)
		require.Equal(t, want, w.Header().Get("Location"), next)
	}
}
