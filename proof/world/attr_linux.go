package world

import "syscall"

// procAttr gives a process a group of its own, so that Ctrl-C reaches only this program, and lets it end with this program.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
