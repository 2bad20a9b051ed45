package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

const module = "github.com/afterwrite/afterwrite"

// ErrNoCommit means that the repository lacks the commit to build.
var ErrNoCommit = errors.New("not in this repository")

// Build builds a package with the flags of `make build`. dir is a folder in the package's module; "" is the current folder.
func Build(ctx context.Context, dir, program, pkg string) error { return build(ctx, dir, program, pkg) }

// build is Build with further flags.
func build(ctx context.Context, dir, program, pkg string, flags ...string) error {
	args := slices.Concat([]string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program}, flags, []string{pkg})
	command := exec.CommandContext(ctx, "go", args...) //nolint:gosec // no input
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// buildCommit builds afterwrite at a commit, from a temporary copy of that commit's files.
func buildCommit(ctx context.Context, commit, program string) (err error) {
	if _, err := git(ctx, "cat-file", "-e", commit+"^{commit}"); err != nil {
		return fmt.Errorf("commit %.7s, the previous version, is %w (%w): run `git fetch --unshallow`, "+
			"or choose comparisons without it with -only", commit, ErrNoCommit, err)
	}
	copied, err := os.MkdirTemp("", "afterwrite-previous-")
	if err != nil {
		return fmt.Errorf("create a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	// git archive covers only the current folder, so run it at the top.
	top, err := git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	archive := filepath.Join(copied, "archive.tar")
	if _, err := git(ctx, "-C", top, "archive", "--output="+archive, commit); err != nil {
		return err
	}
	unpack := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", copied) //nolint:gosec // a temporary folder
	if out, err := unpack.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack commit %.7s: %w\n%s", commit, err, out)
	}
	if err := Build(ctx, copied, program, module); err != nil {
		return fmt.Errorf("commit %.7s: %w", commit, err)
	}
	return nil
}

// git runs git and returns its output.
func git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput() //nolint:gosec // the arguments are constants
	out = bytes.TrimSpace(out)
	if err != nil {
		return "", fmt.Errorf("git: %w: %s", err, out)
	}
	return string(out), nil
}
