package command

import (
	"fmt"
	"runtime/debug"
)

// version is set by -ldflags "-X github.com/afterwrite/afterwrite/internal/command.version=v1.2.3" where the program is
// built without version control stamps, as by the Makefile and in a container. Otherwise the Go tool has written the
// version into the program.
var version string

type versionCommand struct{}

// Run implements the command.
func (versionCommand) Run(w *world) error {
	_, err := fmt.Fprintln(w.stdout, "afterwrite", programVersion())
	return err
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
