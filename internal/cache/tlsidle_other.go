//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd && !solaris && !illumos

package cache

import "net"

// quiet cannot look at a socket on this platform, as go-redis cannot.
func quiet(net.Conn) bool { return true }
