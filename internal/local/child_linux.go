package local

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procAttr makes the kernel send sig to the child when the thread that starts it ends; see startChild.
func procAttr(sig syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: sig}
}

// childrenOf lists the direct children of a process, from /proc. Without /proc the list is empty.
func childrenOf(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && parentOf(path) == parent {
			children = append(children, pid)
		}
	}
	return children
}

// parentOf reads the parent's ID from a stat file: "pid (name) state ppid ...", where the name may hold spaces and ')'.
func parentOf(statPath string) int {
	text, err := os.ReadFile(statPath)
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(fields[1]))
	return ppid
}

// commMax is how much of a program's name the kernel keeps (TASK_COMM_LEN, less its NUL).
const commMax = 15

// worksIn tells whether a process of that name works in the folder now. Both servers change into their data folder.
func worksIn(pid int, name, dir string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	comm, err := os.ReadFile(proc + "/comm")
	if err != nil || strings.TrimSpace(string(comm)) != name[:min(len(name), commMax)] {
		return false
	}
	cwd, err := os.Readlink(proc + "/cwd")
	return err != nil || cwd == dir // a folder that may not be read tells nothing
}
