package auth

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// answersTo reports whether the request's Host is accepted. Without configured names, every Host is accepted, unless the dashboard is
// open: then only names of this machine are. This prevents DNS rebinding: a foreign page whose name resolves to 127.0.0.1 passes the
// browser's same-origin policy, but cannot change the Host that the browser sends.
func (g *Gate) answersTo(r *http.Request) bool {
	name := hostName(r.Host)
	if len(g.hosts) > 0 {
		return slices.Contains(g.hosts, name)
	}
	return !g.open() || config.LoopbackName(name)
}

// hostName returns a Host without port and brackets, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// forwarded reports whether the request has a header that proxies add.
func forwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if _, there := r.Header[name]; there {
			return true
		}
	}
	return false
}

// fromElsewhere reports whether a page from another machine sent the request. A proxy may add no header and replace Host, but it leaves
// the Origin that browsers send with every change.
func fromElsewhere(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !config.LoopbackName(strings.ToLower(u.Hostname())) {
			return true
		}
	}
	return false
}
