//go:build unix && !linux

package up

import "syscall"

// procAttr: there is no parent death signal here. After a kill -9 of `up` its processes go on, and the next `up` says
// that their ports are taken.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
