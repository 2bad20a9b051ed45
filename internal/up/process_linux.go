package up

import "syscall"

func procAttr() *syscall.SysProcAttr {
	// SIGTERM, not SIGKILL: a process that outlives its parent may still finish what it has acknowledged.
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
