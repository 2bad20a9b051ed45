//go:build unix && !linux

package local

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procAttr: there is no parent death signal here. A server whose parent was killed goes on, and the next start says so.
func procAttr(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// childrenOf lists the direct children of a process.
func childrenOf(parent int) []int {
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(parent)).Output()
	var children []int
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			children = append(children, pid)
		}
	}
	return children
}

// worksIn tells whether a process of that name exists; which folder it works in cannot be told without further programs.
func worksIn(pid int, name, _ string) bool {
	out, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "comm=").Output()
	return err == nil && filepath.Base(strings.TrimSpace(string(out))) == name
}
