package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// apply changes the line of the step in the copy at dir, and returns what puts it back.
func (c change) apply(dir string) (undo func() error, err error) {
	path := filepath.Join(dir, c.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(content), "\n")
	at, err := find(lines, c.step)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.file, err)
	}
	code, _, _ := strings.Cut(lines[at], marker(c.file)+"step:")
	changed, ok := c.how(code)
	if !ok {
		return nil, fmt.Errorf("%s: step %q is not what the mutant was made for: %s", c.file, c.step, strings.TrimSpace(code))
	}
	lines[at] = changed
	write := func(text string) error { return os.WriteFile(path, []byte(text), 0o600) } //nolint:gosec // in the copy
	return func() error { return write(string(content)) }, write(strings.Join(lines, "\n"))
}

func marker(file string) string {
	if filepath.Ext(file) == ".lua" {
		return "-- "
	}
	return "// "
}

// find returns the place of the line that the marker of a step is about: its own, or the next if nothing else is in it.
func find(lines []string, step string) (int, error) {
	marked := regexp.MustCompile(`^(.*?)(--|//) step: ` + regexp.QuoteMeta(step) + `$`)
	found := -1
	for i, line := range lines {
		m := marked.FindStringSubmatch(line)
		switch {
		case m == nil:
			continue
		case found >= 0:
			return 0, fmt.Errorf("two lines have the marker \"step: %s\"", step)
		case strings.TrimSpace(m[1]) == "":
			found = i + 1
		default:
			found = i
		}
	}
	if found < 0 || found >= len(lines) {
		return 0, fmt.Errorf("no line has the marker \"step: %s\": mark the line that does it now, or repair the list of mutants", step)
	}
	return found, nil
}

// removed takes the line away.
func removed(string) (string, bool) { return "", true }

var condition = regexp.MustCompile(`^(\s*(?:else)?if )(.*)( then| \{)(\s*(?:--|//).*|\s*)$`)

// never and always put a constant in place of the line's condition.
func never(line string) (string, bool)  { return becomes(condition.String(), "${1}false${3}")(line) }
func always(line string) (string, bool) { return becomes(condition.String(), "${1}true${3}")(line) }

// becomes replaces what matches a pattern in the line.
func becomes(pattern, by string) func(string) (string, bool) {
	p := regexp.MustCompile(pattern)
	return func(line string) (string, bool) { return p.ReplaceAllString(line, by), p.MatchString(line) }
}
