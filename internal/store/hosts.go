package store

import (
	"cmp"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// withHostList returns a postgres:// URL whose authority lists several hosts in the form that lib/pq reads: host and port as parameters.
// libpq accepts postgres://h1:5432,h2:5433/db, but lib/pq takes that for one host, and net/url refuses most such lists. Any other text,
// also a URL that is wrong, is returned unchanged.
func withHostList(databaseURL string) string {
	scheme, rest, _ := strings.Cut(databaseURL, "://")
	if scheme != "postgres" && scheme != "postgresql" {
		return databaseURL
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	user := strings.LastIndex(rest[:end], "@") + 1
	if user == 0 && strings.Contains(rest, "@") {
		return databaseURL // a password with a slash that is not encoded: it must not be taken for hosts, which errors show
	}
	hosts, ports, ok := splitHosts(rest[user:end])
	u, err := url.Parse(scheme + "://" + rest[:user] + rest[end:])
	if !ok || err != nil {
		return databaseURL
	}
	query := u.Query()
	if !query.Has("host") {
		query.Set("host", strings.Join(hosts, ","))
	}
	// Without any port, lib/pq takes PGPORT.
	if !query.Has("port") && slices.ContainsFunc(ports, func(port string) bool { return port != "" }) {
		ports[0] = cmp.Or(ports[0], "5432") // lib/pq accepts an empty port only from the second on
		query.Set("port", strings.Join(ports, ","))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// splitHosts splits a list of two hosts or more, each perhaps with a port. ok is false for any other text.
func splitHosts(list string) (hosts, ports []string, ok bool) {
	for item := range strings.SplitSeq(list, ",") {
		if !strings.Contains(strings.TrimPrefix(item, "["), ":") || strings.HasSuffix(item, "]") {
			item += ":" // no port
		}
		host, port, err := net.SplitHostPort(item)
		if err != nil || strings.Contains(host, "%") {
			return nil, nil, false
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	return hosts, ports, len(hosts) > 1
}

// hostsOf returns every host of config.
func hostsOf(config pq.Config) []pq.ConfigMultihost {
	return append([]pq.ConfigMultihost{{Host: config.Host, Hostaddr: config.Hostaddr, Port: config.Port}}, config.Multi...)
}

// addressOf returns the address that lib/pq dials for a host, unless it is a unix socket.
func addressOf(host pq.ConfigMultihost) string {
	name := host.Host
	if host.Hostaddr.IsValid() {
		name = host.Hostaddr.String()
	}
	return net.JoinHostPort(name, strconv.Itoa(int(host.Port)))
}

// beginningWith returns config with the host of address as the first to try. Otherwise each login would first wait for a dead host.
func beginningWith(config pq.Config, address string) pq.Config {
	hosts := hostsOf(config)
	i := slices.IndexFunc(hosts, func(h pq.ConfigMultihost) bool { return addressOf(h) == address })
	if i <= 0 {
		return config
	}
	ordered := append([]pq.ConfigMultihost{hosts[i]}, slices.Delete(slices.Clone(hosts), i, i+1)...)
	config = config.Clone()
	config.Host, config.Hostaddr, config.Port, config.Multi = ordered[0].Host, ordered[0].Hostaddr, ordered[0].Port, ordered[1:]
	return config
}
