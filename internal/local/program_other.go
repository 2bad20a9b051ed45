//go:build unix && !linux

package local

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procAttr does nothing: there is no parent death signal here. A server survives its killed parent, and the next start reports it.
func procAttr(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// childrenOf returns the direct children of a process.
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

// worksIn reports whether the process has this name. It does not check the working directory, which would need other programs.
func worksIn(pid int, name, _ string) bool {
	out, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "comm=").Output()
	return err == nil && filepath.Base(strings.TrimSpace(string(out))) == name
}
