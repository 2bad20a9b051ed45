package auth_test

import (
	"bytes"
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

func TestUsersAreViewersUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	strong, err := auth.HashPassword(password)
	require.NoError(t, err)
	users, err := auth.ParseUsers("vic:" + strong + ", olga:operator:" + strong + ",")
	require.NoError(t, err)
	require.Equal(t, []auth.User{{Name: "vic", Role: auth.Viewer, Hash: strong}, {Name: "olga", Role: auth.Operator, Hash: strong}}, users)
	none, err := auth.ParseUsers("")
	require.NoError(t, err)
	require.Empty(t, none)

	for list, want := range map[string]string{
		"vic":                                  "it takes name:hash",
		"vic:" + password:                      "not a bcrypt hash",
		"vic:admin:" + strong:                  "neither viewer nor operator",
		"vic:" + hash():                        "a cost of 4",
		"v ic:" + strong:                       "a name takes",
		"vic:" + strong + ",vic:" + strong:     "there twice",
		"vic:" + strings.TrimLeft(strong, "$"): "did a shell",
	} {
		_, err := auth.ParseUsers(list)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), password)
	}
}

func TestNamesThatAreUsersAreNotShown(t *testing.T) {
	t.Parallel()
	names, err := auth.ParseNames("ann, bob@example.com,")
	require.NoError(t, err)
	require.Equal(t, []string{"ann", "bob@example.com"}, names)
	_, err = auth.ParseNames("ann,bob:operator:" + hash())
	require.EqualError(t, err, "name 2: a name takes 1 to 64 letters, digits and . _ @ + -")
	_, err = auth.ParseProxies("10.0.0.1,bob:operator:" + hash())
	require.EqualError(t, err, "entry 2 is neither a network, like 10.0.0.0/8, nor an address")
}

func TestShortAndLongPasswordsAreNotHashed(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "fourteen chars", strings.Repeat("x", 73)} {
		_, err := auth.HashPassword(p)
		require.ErrorContains(t, err, "a password takes")
	}
}

func TestAnOpenDoorIsRefused(t *testing.T) {
	t.Parallel()
	user := []auth.User{{Name: "vic", Role: auth.Viewer, Hash: hash()}}
	proxy := auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")}
	for _, good := range []auth.Options{
		{Address: "127.0.0.1:8081"},
		{Address: "[::1]:1"},
		{Address: "0.0.0.0:8081", Users: user},
		{Address: ":8081", Proxies: proxy, Header: "X-User"},
		{Address: "localhost:1", Hosts: []string{"localhost", "127.0.0.1", "[::1]:8081"}},
		{Address: "localhost:1", Hosts: []string{"aw.example"}, Users: user},
	} {
		require.NoError(t, good.Check())
	}
	for _, open := range []auth.Options{
		{Address: "0.0.0.0:8081"},
		{Address: ":8081"},
		{Address: "10.1.2.3:1"},
		{Address: "0.0.0.0:1", Proxies: proxy},
		{},
		{Address: "127.0.0.1:1", Hosts: []string{"localhost", "aw.example"}},
		{Address: "127.0.0.1:1", Hosts: []string{"10.0.0.1:80"}},
	} {
		require.ErrorIs(t, open.Check(), auth.ErrOpen)
	}
	require.ErrorContains(t, (&auth.Options{Address: "127.0.0.1:1", Header: "X-User"}).Check(), "trusted proxies only")
	require.ErrorContains(t, (&auth.Options{Address: "127.0.0.1:1", Operators: []string{"a"}}).Check(), "none is set")
}

// A browser on the proxy's machine would let a page of somebody else's send the user header, if any name did.
func TestAProxyOnThisMachineNeedsNames(t *testing.T) {
	t.Parallel()
	for list, here := range map[string]bool{
		"127.0.0.1": true, "10.0.0.1,127.0.0.0/8": true, "::1": true, "127.8.0.0/16": true, "0.0.0.0/1": true, "::/1": true,
		"10.0.0.1": false, "192.168.0.0/16,fd00::/8": false, "128.0.0.0/1": false, "::2": false,
	} {
		proxies, err := auth.ParseProxies(list)
		require.NoError(t, err)
		o := auth.Options{Address: "0.0.0.0:1", Proxies: proxies, Header: "X-User", Users: []auth.User{{Name: "vic", Hash: hash()}}}
		if here {
			require.ErrorContains(t, o.Check(), "set AFTERWRITE_DASHBOARD_HOSTS", list)
		} else {
			require.NoError(t, o.Check(), list)
		}
		o.Hosts = []string{"aw.example"}
		require.NoError(t, o.Check(), list)
		o.Hosts, o.Header = nil, ""
		require.NoError(t, o.Check(), "it names nobody")
	}
}

func TestTheClientIsTheLastAddressThatIsNoProxy(t *testing.T) {
	t.Parallel()
	proxies, err := auth.ParseProxies("10.0.0.0/8, 192.0.2.1, fd00::/8")
	require.NoError(t, err)
	for _, c := range []struct {
		peer, forwarded, want string
		untold                bool
	}{
		{"198.51.100.7:1", "", "198.51.100.7", false},
		{"198.51.100.7:1", "10.0.0.1", "198.51.100.7", false}, // not a proxy: what it says does not count
		{"10.0.0.1:1", "198.51.100.7", "198.51.100.7", false},
		{"10.0.0.1:1", "1.2.3.4, 198.51.100.7, 192.0.2.1", "198.51.100.7", false}, // the first is the visitor's own invention
		{"10.0.0.1:1", "10.0.0.2", "10.0.0.2", false},
		{"10.0.0.1:1", "nonsense", "10.0.0.1", true},
		{"10.0.0.1:1", "", "10.0.0.1", true},
		{"10.0.0.1:1", "198.51.100.7, ", "10.0.0.1", true},
		{"10.0.0.1:1", "1.2.3.4, 198.51.100.7:50123", "198.51.100.7", false},
		{"10.0.0.1:1", "[::ffff:198.51.100.7]:1, 10.0.0.9:2", "198.51.100.7", false},
		{"10.0.0.1:1", "[2001:db8::1]:50123", "2001:db8::1", false},
		{"10.0.0.1:1", "[2001:db8::1]", "2001:db8::1", false},
		{"[::ffff:10.0.0.1]:1", "2001:db8::1", "2001:db8::1", false},
		{"[fd00::1%eth0]:1", "198.51.100.7", "198.51.100.7", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		client, told := proxies.Client(r)
		require.Equal(t, c.want, client.String(), "%v", c)
		require.Equal(t, c.untold, !told, "%v", c)
	}
	for _, bad := range []string{"10.0.0.0/33", "proxy.example", "0.0.0.0/0", "::/0"} {
		_, err := auth.ParseProxies(bad)
		require.Error(t, err, bad)
	}
}

// plain are Pages of one line each.
type plain struct{}

func (plain) SignIn(w http.ResponseWriter, _ *http.Request, status int, wrong, _ string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, wrong)
}

func (plain) Reject(w http.ResponseWriter, _ *http.Request, status int, why string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why)
}

// clock is a time that a test sets.
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

// testBundle is a Gate before a page.
type testBundle struct {
	gate    *auth.Gate
	handler http.Handler
	seen    auth.Identity // of the last who saw the page
	clock   *clock
	address string // of the visitor
	log     *syncBuffer
}

// syncBuffer is a log that may be written and read at once.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func setup(t *testing.T, client redis.Cmdable) *testBundle {
	t.Helper()
	b := &testBundle{clock: &clock{now: time.Now()}, address: "198.51.100.7:1", log: new(syncBuffer)}
	gate, err := auth.New(auth.Options{
		Address: "0.0.0.0:1", Users: []auth.User{{Name: "olga", Role: auth.Operator, Hash: hash()}},
		Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")},
		Redis:   client, Pages: plain{}, Logger: slog.New(slog.NewTextHandler(b.log, nil)), Now: b.clock.Now,
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /signin", gate.SignIn)
	mux.HandleFunc("POST /signout", gate.SignOut)
	mux.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { b.seen = auth.Of(r) })
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

func TestASessionEndsWithTheDay(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	cookie := b.session(t)
	b.clock.forward(11 * time.Hour)
	require.Equal(t, http.StatusOK, b.status(cookie))
	b.clock.forward(2 * time.Hour)
	require.Equal(t, http.StatusUnauthorized, b.status(cookie))
}

func TestASessionOutlivesARestartAndEndsEverywhere(t *testing.T) {
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

func TestARedisThatIsAwaySignsNobodyOut(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	before := b.session(t)
	require.NoError(t, client.Close())
	require.Equal(t, http.StatusOK, b.status(before), "it was seen before")
	during := b.session(t)
	require.Equal(t, http.StatusOK, b.status(during), "it is this process's own")
	require.Equal(t, http.StatusServiceUnavailable, b.do(http.MethodPost, "/signout", before, nil, nil).Code)
	require.Equal(t, http.StatusUnauthorized, b.status(before), "here it has ended")
	require.Equal(t, http.StatusUnauthorized, setup(t, client).status(during))
}

func TestASignOutWhileRedisIsAwayIsCarriedOut(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	options, err := redis.ParseURL(server.URL())
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	one, other := setup(t, client), setup(t, client)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { one.gate.Run(ctx) })
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)

	cookie := one.session(t)
	require.NoError(t, server.Stop(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, one.do(http.MethodPost, "/signout", cookie, nil, nil).Code)
	require.NoError(t, server.Start(t.Context()))
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return other.status(cookie) == http.StatusUnauthorized, "the other dashboard still takes the session"
	})
	require.Equal(t, http.StatusUnauthorized, one.status(cookie))
}

// over is closed, or will be soon.
func over(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	require.NotNil(t, ended)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the session goes on")
	}
}

func goesOn(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	require.NotNil(t, ended)
	select {
	case <-ended:
		require.Fail(t, "the session has ended")
	default:
	}
}

func TestASessionTellsOfItsEnd(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	b := setup(t, client)
	first, second, third := b.session(t), b.session(t), b.session(t)
	ended := make(map[string]<-chan struct{})
	for _, cookie := range []string{first, second, third} {
		require.Equal(t, http.StatusOK, b.status(cookie))
		ended[cookie] = b.seen.Ended
	}
	require.Equal(t, http.StatusOK, b.status(first))
	require.Equal(t, ended[first], b.seen.Ended, "it is the same in each request")

	require.Equal(t, http.StatusSeeOther, b.do(http.MethodPost, "/signout", first, nil, nil).Code)
	over(t, ended[first])
	form := url.Values{"name": {"olga"}, "password": {password}}
	require.Equal(t, http.StatusSeeOther, b.do(http.MethodPost, "/signin", second, form, nil).Code, "a new one instead")
	over(t, ended[second])
	goesOn(t, ended[third])

	later := setup(t, client)
	later.clock.forward(b.clock.Now().Add(12*time.Hour - time.Second).Sub(later.clock.Now())) // however long it has taken up to here
	require.Equal(t, http.StatusOK, later.status(third))
	over(t, later.seen.Ended)
	goesOn(t, ended[third])

	require.NoError(t, client.Close())
	require.Equal(t, http.StatusServiceUnavailable, b.do(http.MethodPost, "/signout", third, nil, nil).Code)
	over(t, ended[third])
}

func TestTriesComeBackWithTime(t *testing.T) {
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
	require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code, "a right one costs the address nothing")
}

func TestVisitorsOfAProxyThatWritesPortsDoNotShareTries(t *testing.T) {
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
	require.Equal(t, 1, strings.Count(b.log.String(), "does not say whose requests it passes on"), "it is told once")
}

func TestANameIsLimitedFromAllAddressesTogether(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 30 {
		b.address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1).String()
		require.Equal(t, http.StatusUnauthorized, b.signIn("olga", "wrong").Code)
	}
	b.address = "203.0.113.1:1"
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", "wrong").Code)
}

func TestRightPasswordsAreLimitedByName(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for range 30 {
		require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code)
	}
	b.address = "203.0.113.1:1"
	refused := b.signIn("olga", password)
	require.Equal(t, http.StatusTooManyRequests, refused.Code)
	require.Equal(t, "5", refused.Header().Get("Retry-After"))
	require.Equal(t, http.StatusUnauthorized, b.signIn("other", password).Code, "others may try")
	b.clock.forward(5 * time.Second)
	require.Equal(t, http.StatusSeeOther, b.signIn("olga", password).Code)
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", password).Code)
}

func TestOneNetworkOfIPv6IsOneAddress(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	for i := range 10 {
		b.address = "[2001:db8::" + string(rune('1'+i%9)) + "]:1"
		require.Equal(t, http.StatusUnauthorized, b.signIn("olga", "wrong").Code)
	}
	require.Equal(t, http.StatusTooManyRequests, b.signIn("olga", "wrong").Code)
}

func TestAPasswordThatIsLongerThanBcryptReadsIsWrong(t *testing.T) {
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
	require.Equal(t, http.StatusUnauthorized, b.do(http.MethodGet, "/", stolen, nil, https).Code, "over TLS only a cookie of TLS counts")
}

func TestASignInLeadsToOurPagesOnly(t *testing.T) {
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

func TestManySignInsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	var group sync.WaitGroup
	codes := make([]int, 60)
	for i := range codes {
		group.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/signin", strings.NewReader(url.Values{"name": {"n"}, "password": {"p"}}.Encode()))
			r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1).String()
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, r)
			codes[i] = w.Code
		})
	}
	group.Wait()
	for _, code := range codes {
		require.Contains(t, []int{http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable}, code)
	}
}
