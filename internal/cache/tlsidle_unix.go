//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd || solaris || illumos

package cache

import (
	"net"
	"syscall"
)

// quiet reports whether the peer has neither closed the connection nor sent anything that has not been read. It does not block. The caller
// must have cleared the read deadline.
func quiet(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return true // nothing is known
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var waits bool
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waits = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && waits
}
