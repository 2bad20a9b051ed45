package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// apply changes the line of the step in the copy at dir. undo restores the file.
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
		return nil, fmt.Errorf("%s: step %q has an unexpected line: %s", c.file, c.step, strings.TrimSpace(code))
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

// find returns the index of the line that a marker names: the marker's line or, if the marker is alone in it, the next line.
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
		return 0, fmt.Errorf("no line has the marker \"step: %s\": mark the line, or remove its mutant", step)
	}
	return found, nil
}

// removed deletes the line.
func removed(string) (string, bool) { return "", true }

var condition = regexp.MustCompile(`^(\s*(?:else)?if )(.*)( then| \{)(\s*(?:--|//).*|\s*)$`)

// never and always replace the line's condition by a constant.
func never(line string) (string, bool)  { return becomes(condition.String(), "${1}false${3}")(line) }
func always(line string) (string, bool) { return becomes(condition.String(), "${1}true${3}")(line) }

// becomes replaces all matches of a pattern in the line.
func becomes(pattern, by string) edit {
	p := regexp.MustCompile(pattern)
	return func(line string) (string, bool) { return p.ReplaceAllString(line, by), p.MatchString(line) }
}
