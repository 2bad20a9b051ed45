package access

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// knows reports whether the request's Host is one of names, or where there are none, whether names do not matter: they do
// where nobody signs in. A page of somebody else's whose name resolves to 127.0.0.1 (DNS rebinding) has the browser's
// same-origin policy on its side, but cannot change the Host that the browser sends.
func (g *Gate) knows(r *http.Request) bool {
	name := hostName(r.Host)
	if len(g.hosts) > 0 {
		return slices.Contains(g.hosts, name)
	}
	return !g.open() || localName(name)
}

// hostName is a Host without its port and brackets, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

func localName(name string) bool {
	if name == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.Unmap().IsLoopback()
}

// forwarded reports that a proxy has passed the request on.
func forwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if _, there := r.Header[name]; there {
			return true
		}
	}
	return false
}

// elsewhere reports that a page at a name which is not this machine's sent the request. A proxy may pass on nothing that
// tells of it, and put a local name into Host; the Origin of what changes something remains the browser's.
func elsewhere(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !localName(strings.ToLower(u.Hostname())) {
			return true
		}
	}
	return false
}

// Loopback reports whether addr (host:port) is reachable from this machine only. An address whose host is a name other
// than localhost counts as reachable from others.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && localName(strings.ToLower(host))
}
