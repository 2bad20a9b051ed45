package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/afterwrite/afterwrite/internal/local"
)

// machine describes the hardware and the versions of a run.
type machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	MemoryGB int    `json:"memory_gb"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Redis    string `json:"redis"`
	Postgres string `json:"postgres"`
	WRK      string `json:"wrk"`
	Commit   string `json:"commit"`
}

// versionPattern finds a version in the output of a program.
var versionPattern = regexp.MustCompile(`\d+(\.\d+)+`)

// describeMachine collects the description. A field that cannot be determined stays empty.
func describeMachine(ctx context.Context) machine {
	postgres, _ := local.PostgresProgram(ctx, "postgres") // if it is missing, the run fails later
	m := machine{
		Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"),
		Redis: version(ctx, "redis-server", "--version"), Postgres: version(ctx, postgres, "--version"),
		WRK: version(ctx, "wrk", "-v"), Commit: firstLine(ctx, "git", "describe", "--always", "--dirty"),
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return m
	}
	if cores, err := proc.CPUInfo(); err == nil && len(cores) > 0 {
		m.CPU = cores[0].ModelName
	}
	if memory, err := proc.Meminfo(); err == nil && memory.MemTotalBytes != nil {
		m.MemoryGB = int((*memory.MemTotalBytes + 1<<29) >> 30)
	}
	return m
}

// firstLine returns the first line of a program's output. It ignores errors, because some programs print their version to stderr with
// exit status 1.
func firstLine(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput() //nolint:gosec // the names are constants
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func version(ctx context.Context, program string, args ...string) string {
	return versionPattern.FindString(firstLine(ctx, program, args...))
}
