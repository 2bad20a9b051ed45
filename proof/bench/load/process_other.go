//go:build unix && !linux

package load

import "syscall"

// procAttr gives a process a group of its own, so that Ctrl-C reaches only this program. There is no parent death signal here.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
