package auth

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// answersTo reports whether the request's Host is one of the configured names. Without such names, any will do if somebody has to sign
// in, else only those of this machine: a page of another site whose name resolves to 127.0.0.1 (DNS rebinding) passes the
// browser's same-origin policy, but cannot change the Host that the browser sends.
func (g *Gate) answersTo(r *http.Request) bool {
	name := hostName(r.Host)
	if len(g.hosts) > 0 {
		return slices.Contains(g.hosts, name)
	}
	return !g.open() || localName(name)
}

// hostName returns a Host without port and brackets, in lower case.
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

// forwarded reports whether a proxy has passed the request on.
func forwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if _, there := r.Header[name]; there {
			return true
		}
	}
	return false
}

// fromElsewhere reports whether a page that is not from this machine sent the request. A proxy may add no header and put a local name
// into Host, but the Origin of a request that changes something is still the one that the browser set.
func fromElsewhere(r *http.Request) bool {
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
