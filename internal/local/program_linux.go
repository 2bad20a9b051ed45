package local

import (
	"syscall"

	"github.com/prometheus/procfs"
)

// procAttr makes the kernel send sig to the child when the thread that starts it ends; see Process.run.
func procAttr(sig syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: sig}
}

// childrenOf lists the direct children of a process. Without /proc the list is empty.
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

// commMax is how much of a program's name the kernel keeps (TASK_COMM_LEN, less its NUL).
const commMax = 15

// worksIn tells whether a process of that name works in the folder now. Both servers change into their data folder.
func worksIn(pid int, name, dir string) bool {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	if comm, err := p.Comm(); err != nil || comm != name[:min(len(name), commMax)] {
		return false
	}
	cwd, err := p.Cwd()
	return err != nil || cwd == dir // a folder that may not be read tells nothing
}
