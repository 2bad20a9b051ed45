package report

import (
	"fmt"
	"os"
	"strings"
)

// The benchmark writes between these marks; the rest of a document is its author's.
const (
	markBegin = "<!-- bench:begin -->"
	markEnd   = "<!-- bench:end -->"
)

// Rewrite returns the document with text between the two marks. Each mark must occur once, in this order.
func Rewrite(document, text string) (string, error) {
	before, rest, found := strings.Cut(document, markBegin)
	_, after, ended := strings.Cut(rest, markEnd)
	if !found || !ended || strings.Count(document, markBegin) != 1 || strings.Count(document, markEnd) != 1 {
		return "", fmt.Errorf("it has to have the lines %s and %s once, in this order", markBegin, markEnd)
	}
	return before + markBegin + "\n" + strings.TrimSpace(text) + "\n" + markEnd + after, nil
}

// RewriteFile rewrites a file, and keeps its mode.
func RewriteFile(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read what to rewrite: %w", err)
	}
	document, err := Rewrite(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the mode of %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(document), info.Mode().Perm()); err != nil { //nolint:gosec // the path is ours
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
