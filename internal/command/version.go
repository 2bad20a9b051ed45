package command

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// These are set by -ldflags "-X github.com/afterwrite/afterwrite/internal/command.version=v1.2.3" etc. in builds without version control
// stamps, such as those of the Makefile and in a container. Otherwise the Go tool records them.
var version, commit, date string

type versionCommand struct{}

// Run implements the command.
func (versionCommand) Run(w *world) error {
	_, err := fmt.Fprintln(w.stdout, versionLine(debug.ReadBuildInfo()))
	return err
}

// versionLine returns the program's version, its commit and date if they are known, and the version of Go.
func versionLine(info *debug.BuildInfo, ok bool) string {
	recorded := make(map[string]string)
	if ok {
		for _, s := range info.Settings {
			recorded[s.Key] = s.Value
		}
	}
	parts := []string{"afterwrite " + programVersion()}
	if commit := cmp.Or(commit, recorded["vcs.revision"]); commit != "" {
		parts = append(parts, fmt.Sprintf("commit %.12s", commit))
	}
	if date := cmp.Or(date, recorded["vcs.time"]); date != "" {
		parts = append(parts, utc(date))
	}
	return strings.Join(append(parts, runtime.Version()), ", ")
}

// utc converts an RFC 3339 time to UTC. It returns any other text unchanged.
func utc(date string) string {
	at, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return date
	}
	return at.UTC().Format(time.RFC3339)
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
