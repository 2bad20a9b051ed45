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

// describeMachine collects the description. What cannot be found out is empty.
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

// field is the value of a "name: value" line in a file of /proc.
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

// said is the first line of a program's output. Some print their version to stderr, with exit status 1.
func said(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput() //nolint:gosec // names from here
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func version(ctx context.Context, program string, args ...string) string {
	return versionPattern.FindString(said(ctx, program, args...))
}
