package local

import (
	"syscall"

	"github.com/prometheus/procfs"
)

// procAttr makes the kernel send sig to the child when the thread that started it ends; see Process.run.
func procAttr(sig syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: sig}
}

// childrenOf returns the direct children of a process; none without /proc.
func childrenOf(parent int) []int {
	all, _ := procfs.AllProcs()
	var children []int
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && stat.PPID == parent {
			children = append(children, p.PID)
		}
	}
	return children
}

// commMax is the kernel's limit for the name of a process (TASK_COMM_LEN without the NUL).
const commMax = 15

// worksIn reports whether the process has this name and this working directory. Both servers change to their data folder.
func worksIn(pid int, name, dir string) bool {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	if comm, err := p.Comm(); err != nil || comm != name[:min(len(name), commMax)] {
		return false
	}
	cwd, err := p.Cwd()
	return err != nil || cwd == dir // if the directory is not readable, assume that it is this one
}
