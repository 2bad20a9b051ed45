package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// lines are consecutive lines of a stream, without the empty ones.
type lines struct {
	plan    []planned
	numbers []int64 // of each line, from 1; empty lines count
}

// intake reads the lines of a stream in a goroutine of its own, while the group before is carried out. It holds one group: while
// that is full, it does not read, and the client has to wait.
type intake struct {
	connection *http.ResponseController
	size       int // lines in a group, at most
	limits     streamLimits
	done       chan struct{} // closed when the goroutine has ended

	// Only the goroutine uses these.
	body     io.Reader
	coded    *expander // nil: the body is not compressed
	json     *body
	line     bytes.Reader
	number   int64     // of the line that is being read
	empty    int       // empty lines before it
	timed    int64     // the line that deadline is for; 0: none
	deadline time.Time // until which that line has to arrive

	mu       sync.Mutex
	changed  *sync.Cond
	group    lines
	ended    bool // nothing is added any more
	err      error
	panicked string // the value and the stack of a panic in the goroutine
}

// startIntake starts to read the body into groups of up to size lines. The caller calls stop.
func startIntake(c echo.Context, coding string, size int, limits streamLimits) *intake {
	in := &intake{
		connection: http.NewResponseController(c.Response().Writer), size: size, limits: limits, done: make(chan struct{}),
		body: c.Request().Body, json: &body{isLine: true},
	}
	in.changed = sync.NewCond(&in.mu)
	// Read and write at the same time. HTTP/2 always can.
	_ = in.connection.EnableFullDuplex()
	var source io.Reader = deadlineReader{in}
	if coding != codingNone {
		in.coded = newExpander(coding, source)
		source = in.coded
	}
	go in.run(bufio.NewReaderSize(source, MaxLineBytes+1))
	return in
}

// next returns the lines that have arrived, at least one unless more is false: then no line follows. reuse is a group that the
// caller no longer needs.
func (in *intake) next(reuse lines) (group lines, more bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.group.plan) == 0 && !in.ended {
		in.changed.Wait()
	}
	if in.panicked != "" {
		panic(in.panicked)
	}
	clear(reuse.plan) // the keys and IDs need not stay in memory
	group, in.group = in.group, lines{plan: reuse.plan[:0], numbers: reuse.numbers[:0]}
	in.changed.Signal()
	return group, !in.ended
}

// add adds a line to the group. It blocks while the group is full, and returns false if no more lines are wanted.
func (in *intake) add(p planned) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.group.plan) == in.size && !in.ended {
		in.changed.Wait()
	}
	if in.ended {
		return false
	}
	in.group.plan = append(in.group.plan, p)
	in.group.numbers = append(in.group.numbers, in.number)
	in.changed.Signal()
	return true
}

// finish ends the stream after the lines that were added. err is nil at the end of the body. Only the first call counts.
func (in *intake) finish(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.ended {
		in.ended, in.err = true, err
	}
	in.changed.Broadcast()
}

// drop is finish for a group that next returned but that was not carried out: the stream ended before it, even if its body has
// ended.
func (in *intake) drop(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended, in.err = true, err
	in.changed.Broadcast()
}

// failure returns the error that ended the stream early, or nil.
func (in *intake) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

// stop ends the goroutine. If the body has not been read to its end, stop reads on for a moment: if a connection is closed
// before its data are read, the client may lose the answer.
func (in *intake) stop() {
	in.finish(nil)
	_ = in.connection.SetReadDeadline(time.Now().Add(in.limits.linger))
	<-in.done
}

// run reads lines until the body ends.
func (in *intake) run(r *bufio.Reader) {
	defer close(in.done)
	defer func() {
		if v := recover(); v != nil {
			in.mu.Lock()
			in.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
			in.mu.Unlock()
			in.finish(nil)
			return
		}
		if in.coded != nil {
			in.coded.close()
		}
	}()
	for {
		in.number++
		p, found, err := in.read(r)
		if !found {
			p, found = in.skip()
		} else {
			in.empty = 0
		}
		if found && !in.add(p) {
			_, _ = io.Copy(io.Discard, in.body) // until the deadline that stop sets
			return
		}
		if err != nil {
			in.finish(in.explain(err))
			return
		}
	}
}

// maxEmptyLines bounds the empty lines in a row: they cost time, but nothing of the rate of an API key.
const maxEmptyLines = 1000

// skip counts an empty line. One of 1,000 in a row fails like an operation.
func (in *intake) skip() (p planned, fails bool) {
	in.empty++
	if in.empty%maxEmptyLines != 0 {
		return p, false
	}
	return planned{err: invalidBody("there are %d empty lines in a row: send none", maxEmptyLines)}, true
}

// read reads a line. found is false if it is empty or incomplete. If there are both a line and an error, the body ends after the
// line.
func (in *intake) read(r *bufio.Reader) (p planned, found bool, err error) {
	line, err := r.ReadSlice('\n')
	if len(bytes.TrimSuffix(line, []byte("\n"))) > MaxLineBytes { // it fills the buffer
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		return planned{err: &counter.Error{
			Code: counter.CodeBodyTooLarge, Detail: fmt.Sprintf("the line is longer than %d bytes", MaxLineBytes),
		}}, true, err
	}
	line = bytes.Trim(line, " \t\r\n")
	if len(line) == 0 || (err != nil && !errors.Is(err, io.EOF)) {
		return p, false, err
	}
	return in.decode(line), true, err
}

// decode reads the operation in a line.
func (in *intake) decode(line []byte) planned {
	b := in.json
	in.line.Reset(line)
	b.source = source{reader: &in.line}
	b.json.Reset(&b.source)
	p, err := b.operation(wholeBody)
	if err == nil {
		err = b.end()
	}
	if err != nil {
		return planned{err: err}
	}
	return p
}

// explain returns the error for the client, or nil if the body ended as it should.
func (in *intake) explain(err error) error {
	undecodable, isCoding := errors.AsType[*codingError](err)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return invalidBody("no complete line arrived within %s", in.limits.line)
	case isCoding:
		return invalidBody("%s", undecodable.detail())
	default:
		return invalidBody("the body was incomplete")
	}
}

// deadlineReader reads the body. It allows in.limits.line for each line, instead of the server's limit for the whole body. There is a
// deadline only during a read: the time does not run while the intake waits for the group before, and on HTTP/2 a deadline that has
// passed ends the body for good.
type deadlineReader struct{ in *intake }

func (d deadlineReader) Read(p []byte) (int, error) {
	in := d.in
	if in.timed != in.number {
		in.timed, in.deadline = in.number, time.Now().Add(in.limits.line)
	}
	in.setDeadline(in.deadline)
	n, err := in.body.Read(p)
	if err == nil {
		in.setDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // bufio and the decoders compare it with io.EOF
}

// setDeadline sets the deadline of reads, unless stop has set the last one.
func (in *intake) setDeadline(t time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.ended {
		_ = in.connection.SetReadDeadline(t)
	}
}
