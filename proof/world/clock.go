package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ClockOffset is the variable by which a program of BuildWithClock gets the offset of its clock, in seconds.
const ClockOffset = "PROOF_CLOCK_OFFSET"

// The source of time.Now in Go 1.26, and the same with an offset.
const (
	readClock  = "sec, nsec, mono := runtimeNow()\n"
	addOffset  = readClock + "\tsec += proofOffset\n"
	offsetVars = `
// proofOffset is added to the wall clock.
var proofOffset = func() int64 {
	text, _ := syscall.Getenv("` + ClockOffset + `")
	sign, n := int64(1), int64(0)
	for _, c := range []byte(text) {
		if c == '-' {
			sign = -1
		} else {
			n = 10*n + int64(c-'0')
		}
	}
	return sign * n
}()
`
	imports = "import (\n"
)

var errOtherGo = errors.New("time.Now of this Go differs from that of Go 1.26: adapt proof/world/clock.go")

// BuildWithClock builds afterwrite with a wall clock that ClockOffset can set forward and back. libfaketime cannot do that: Go reads the
// clock without libc. It compiles the standard library again, which takes a minute or two.
func BuildWithClock(ctx context.Context, dir, program string) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read time.Now: %w", err)
	}
	patched := strings.Replace(string(text), readClock, addOffset, 1)
	if patched == string(text) || !strings.Contains(patched, imports) {
		return errOtherGo
	}
	patched = strings.Replace(patched, imports, imports+"\t\"syscall\"\n", 1) + offsetVars
	replacement, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {source: replacement}})
	if err != nil {
		return fmt.Errorf("encode the overlay: %w", err)
	}
	for path, content := range map[string][]byte{replacement: []byte(patched), overlay: list} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("write the overlay: %w", err)
		}
	}
	return build(ctx, "", program, module, "-overlay="+overlay)
}
