package up

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mattn/go-isatty"
)

const (
	// nameWidth is the width of the longest names, scheduler and dashboard.
	nameWidth = 9

	// maxLine bounds the memory for an incomplete line. A longer line is split.
	maxLine = 64 << 10
)

// palette are the ANSI colours (ECMA-48 SGR) of the names. They are legible on dark and light backgrounds.
var palette = []int{36, 33, 35, 32, 34, 31}

// console merges the output of several processes, line by line. It is safe for concurrent use.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	names  int
}

// newConsole colours the names when out is a terminal, unless NO_COLOR (no-color.org) is set.
func newConsole(out io.Writer) *console {
	file, ok := out.(*os.File)
	colour := ok && isatty.IsTerminal(file.Fd()) && os.Getenv("NO_COLOR") == ""
	return &console{out: out, colour: colour}
}

// stream returns a writer of lines that begin with name.
func (c *console) stream(name string) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	prefix := fmt.Sprintf("%-*s | ", nameWidth, name)
	if c.colour {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", palette[c.names%len(palette)], prefix)
	}
	c.names++
	return &stream{console: c, prefix: prefix}
}

// write writes to the output. It ignores errors: if the reader has gone (up | head), the processes must still be stopped in order.
func (c *console) write(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(text)
}

// stream is the output of one process on a console. It is safe for concurrent use: stdout and stderr are copied by two goroutines.
type stream struct {
	console *console
	prefix  string

	mu      sync.Mutex
	partial []byte // an incomplete line
}

// Write implements io.Writer. It never fails.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = append(s.partial, p...)
	for {
		end := bytes.IndexByte(s.partial, '\n')
		if end < 0 && len(s.partial) < maxLine {
			return len(p), nil
		}
		if end < 0 || end > maxLine {
			s.line(s.partial[:maxLine])
			s.partial = s.partial[maxLine:]
			continue
		}
		s.line(s.partial[:end])
		s.partial = s.partial[end+1:]
	}
}

// Close writes the incomplete line, if any.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.partial) > 0 {
		s.line(s.partial)
		s.partial = nil
	}
	return nil
}

// sayf writes one line.
func (s *stream) sayf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(fmt.Appendf(nil, format, args...))
}

func (s *stream) line(text []byte) {
	text = bytes.TrimSuffix(text, []byte("\r"))
	line := make([]byte, 0, len(s.prefix)+len(text)+1)
	line = append(line, s.prefix...)
	line = append(line, text...)
	s.console.write(append(line, '\n'))
}
