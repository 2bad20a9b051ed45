package config

import (
	"net"
	"net/netip"
	"strings"
)

// Loopback reports whether addr (host:port) is reachable from this machine only. Of names, it accepts only localhost.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && LoopbackName(strings.ToLower(host))
}

// LoopbackName reports whether a host name, in lower case and without brackets, is localhost or a loopback address.
func LoopbackName(name string) bool {
	if name == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.Unmap().IsLoopback()
}
