package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses of trusted proxies.
type Proxies []netip.Prefix

// ParseProxies reads networks (10.0.0.0/8) and addresses, comma separated. The error does not quote an invalid entry: see ParseNames.
func ParseProxies(list string) (Proxies, error) {
	var proxies Proxies
	for i, entry := range strings.Split(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			address, addressErr := netip.ParseAddr(entry)
			if addressErr != nil {
				return nil, fmt.Errorf("entry %d must be a network, such as 10.0.0.0/8, or an address", i+1)
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		if prefix.Bits() == 0 {
			return nil, fmt.Errorf("%q contains every address; use the address of the proxy", entry)
		}
		proxies = append(proxies, prefix.Masked())
	}
	return proxies, nil
}

// Trusts reports whether the request's peer is one of the proxies.
func (p Proxies) Trusts(r *http.Request) bool { return p.contain(peer(r)) }

func (p Proxies) contain(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	return address.IsValid() && slices.ContainsFunc(p, func(one netip.Prefix) bool { return one.Contains(address) })
}

// onThisMachine reports whether a loopback address is trusted.
func (p Proxies) onThisMachine() bool {
	return slices.ContainsFunc(p, func(one netip.Prefix) bool {
		return one.Overlaps(loopback4) || one.Contains(netip.IPv6Loopback())
	})
}

// loopback4 are the loopback addresses of IPv4 (RFC 1122).
var loopback4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

// Client returns the address of the request's sender: the peer or, if that is a trusted proxy, the last address in X-Forwarded-For that
// is not trusted. The addresses before it may be forged. If all are trusted, Client returns the first. If the header is missing or an
// entry is invalid, it returns the last proxy before it, and false.
func (p Proxies) Client(r *http.Request) (client netip.Addr, known bool) {
	client = peer(r)
	if !p.contain(client) {
		return client, true
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		address, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			return client, false
		}
		client = address
		if !p.contain(client) {
			return client, true
		}
	}
	return client, true
}

// parseHop parses an address as proxies write it: some add the port, and some brackets.
func parseHop(hop string) (netip.Addr, bool) {
	if end, err := netip.ParseAddrPort(hop); err == nil {
		return end.Addr().Unmap(), true
	}
	if inner, ok := strings.CutPrefix(hop, "["); ok {
		hop = strings.TrimSuffix(inner, "]")
	}
	address, err := netip.ParseAddr(hop)
	return address.Unmap(), err == nil
}

// secure reports whether the browser's connection is encrypted.
func (p Proxies) secure(r *http.Request) bool {
	return r.TLS != nil || p.Trusts(r) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// errTwoNames: the header is there twice, because the visitor sent one and the proxy did not remove it.
var errTwoNames = errors.New("the request has more than one user header")

// userFromHeader returns the name in the header, or "" if a trusted proxy sent none.
func (p Proxies) userFromHeader(r *http.Request, header string) (string, error) {
	if header == "" || !p.Trusts(r) {
		return "", nil
	}
	values := r.Header.Values(header)
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", nil
	case len(values) > 1:
		return "", errTwoNames
	}
	return values[0], CheckName(values[0])
}

// peer returns the address at the other end of the connection, or an invalid one if RemoteAddr has none.
func peer(r *http.Request) netip.Addr {
	end, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return end.Addr().Unmap()
}
