package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/local"
)

// machine is where and of what a run was made.
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

// versionPattern finds a version in what programs say of themselves.
var versionPattern = regexp.MustCompile(`\d+(\.\d+)+`)

// describeMachine asks the machine. What it does not tell is empty.
func describeMachine(ctx context.Context) machine {
	postgres, _ := local.PostgresProgram(ctx, "postgres") // where there is none, the run fails later
	m := machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"),
		Redis: version(ctx, "redis-server", "--version"), Postgres: version(ctx, postgres, "--version"),
		WRK: version(ctx, "wrk", "-v"), Commit: said(ctx, "git", "describe", "--always", "--dirty"),
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	kilobytes, _ := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"))
	m.MemoryGB = (kilobytes + 1<<19) >> 20
	return m
}

// field is what stands behind a name and a colon in a file of /proc.
func field(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// said is the first line of what a program prints; many print their version on stderr, with a status of 1.
func said(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput() //nolint:gosec // names from here
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func version(ctx context.Context, program string, args ...string) string {
	return versionPattern.FindString(said(ctx, program, args...))
}
