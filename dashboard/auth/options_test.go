package auth_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
)

func TestUsersAreViewersByDefault(t *testing.T) {
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
		"vic":                                  "must be name:hash",
		"vic:" + password:                      "must be a bcrypt hash",
		"vic:admin:" + strong:                  "must be viewer or operator",
		"vic:" + hash():                        "a cost of 4",
		"v ic:" + strong:                       "a name must be",
		"vic:" + strong + ",vic:" + strong:     "listed twice",
		"vic:" + strings.TrimLeft(strong, "$"): "did a shell",
	} {
		_, err := auth.ParseUsers(list)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), password)
	}
}

func TestErrorsDoNotRepeatPasswordHashes(t *testing.T) {
	t.Parallel()
	names, err := auth.ParseNames("ann, bob@example.com,")
	require.NoError(t, err)
	require.Equal(t, []string{"ann", "bob@example.com"}, names)
	_, err = auth.ParseNames("ann,bob:operator:" + hash())
	require.EqualError(t, err, "name 2: a name must be 1 to 64 characters long, from letters, digits and . _ @ + -")
	_, err = auth.ParseProxies("10.0.0.1,bob:operator:" + hash())
	require.EqualError(t, err, "entry 2 must be a network, such as 10.0.0.0/8, or an address")
}

func TestShortAndLongPasswordsAreNotHashed(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "fourteen chars", strings.Repeat("x", 73)} {
		_, err := auth.HashPassword(p)
		require.ErrorContains(t, err, "a password must have")
	}
}

func TestOpenDashboardIsRefused(t *testing.T) {
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
	require.ErrorContains(t, (&auth.Options{Address: "127.0.0.1:1", Operators: []string{"a"}}).Check(), "needs AFTERWRITE_DASHBOARD_USER_HEADER")
}

// If the proxy runs on this machine and every Host is accepted, a foreign web page in a browser here can send the user header
// (DNS rebinding).
func TestProxyOnThisMachineNeedsHosts(t *testing.T) {
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
		require.NoError(t, o.Check(), "without a user header, nobody can be impersonated")
	}
}

func TestClientIsTheLastAddressThatIsNotAProxy(t *testing.T) {
	t.Parallel()
	proxies, err := auth.ParseProxies("10.0.0.0/8, 192.0.2.1, fd00::/8")
	require.NoError(t, err)
	for _, c := range []struct {
		peer, forwarded, want string
		unknown               bool // the proxy does not report the client
	}{
		{"198.51.100.7:1", "", "198.51.100.7", false},
		{"198.51.100.7:1", "10.0.0.1", "198.51.100.7", false}, // not a proxy: its header does not count
		{"10.0.0.1:1", "198.51.100.7", "198.51.100.7", false},
		{"10.0.0.1:1", "1.2.3.4, 198.51.100.7, 192.0.2.1", "198.51.100.7", false}, // the first was forged by the visitor
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
		client, known := proxies.Client(r)
		require.Equal(t, c.want, client.String(), "%v", c)
		require.Equal(t, c.unknown, !known, "%v", c)
	}
	for _, bad := range []string{"10.0.0.0/33", "proxy.example", "0.0.0.0/0", "::/0"} {
		_, err := auth.ParseProxies(bad)
		require.Error(t, err, bad)
	}
}
