package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// summaryEvery is the number of operations from one summary to the next, with return=minimal.
	summaryEvery = 10_000
	// maxErrorLines bounds the errors that a stream reports with return=minimal: such a client may not read before it has sent all,
	// and the answer must fit into the buffers of the connection.
	maxErrorLines = 1000
)

// streamAnswer writes the answer of a stream.
type streamAnswer struct {
	c          echo.Context
	connection *http.ResponseController
	minimal    bool
	timeout    time.Duration // for the client to read what was written at once
	buffer     *buffer
	err        error // the first error of a write: the client has disconnected, or does not read

	lines           int64 // the number of the last line that was carried out or failed
	applied, failed int64 // operations
}

func newStreamAnswer(c echo.Context, prefers preferences, timeout time.Duration) *streamAnswer {
	prefers.applied(c, prefers.minimal)
	return &streamAnswer{
		c: c, connection: http.NewResponseController(c.Response().Writer),
		minimal: prefers.minimal, timeout: timeout, buffer: getBuffer(),
	}
}

// begin sends the headers, before the first line has arrived: a client may wait for them.
func (a *streamAnswer) begin() {
	r, h := a.c.Request(), a.c.Response().Header()
	h[echo.HeaderContentType] = []string{mimeNDJSON}
	h[echo.HeaderCacheControl] = noStore
	h["X-Accel-Buffering"] = []string{"no"} // nginx would collect the answer
	if r.ProtoMajor == 1 {
		// The rest of a body that was not read must not be taken for the next request.
		h.Set(echo.HeaderConnection, "close")
	}
	if r.Header.Get("Expect") == "" { // net/http answers 100 at the first read, which must come before the headers
		a.flush()
	}
}

// results writes the results of a group.
func (a *streamAnswer) results(group lines, results []counter.Result) {
	for i, r := range results {
		a.lines = group.numbers[i]
		if r.Err == nil {
			a.applied++
			if !a.minimal {
				a.line(appendResult(a.buffer.bytes, group.plan[i], r))
			}
		} else {
			a.failed++
			if !a.minimal || a.failed <= maxErrorLines {
				a.line(appendLineNumber(appendResult(a.buffer.bytes, group.plan[i], r), a.lines))
			}
		}
		if a.minimal && (a.applied+a.failed)%summaryEvery == 0 {
			a.line(append(a.appendSummary(a.buffer.bytes), '}'))
		}
	}
	a.flush()
}

// end writes the last summary. err is the reason if the stream ended before the end of its body.
func (a *streamAnswer) end(err error) {
	b := append(a.appendSummary(a.buffer.bytes), `,"done":true`...)
	if err != nil {
		b = append(b, `,"error":`...)
		b = appendProblem(b, asProblem(err))
	}
	a.line(append(b, '}'))
	a.flush()
	_ = a.connection.SetWriteDeadline(time.Now().Add(a.timeout)) // for net/http, which ends the body
	putBuffer(a.buffer)
	a.buffer = nil
}

// appendSummary appends a summary without its closing brace.
func (a *streamAnswer) appendSummary(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"lines":`...), a.lines, 10)
	b = strconv.AppendInt(append(b, `,"applied":`...), a.applied, 10)
	return strconv.AppendInt(append(b, `,"failed":`...), a.failed, 10)
}

// line ends a line of the answer: b is the buffer with the line.
func (a *streamAnswer) line(b []byte) {
	b = append(b, '\n')
	a.buffer.bytes = b
	if len(a.buffer.bytes) >= maxPooledBytes/2 {
		a.write()
	}
}

// write writes the buffer. It blocks while the client does not read.
func (a *streamAnswer) write() {
	w := a.c.Response()
	_ = a.connection.SetWriteDeadline(time.Now().Add(a.timeout))
	if !w.Committed {
		w.WriteHeader(http.StatusOK)
	}
	if a.err == nil && len(a.buffer.bytes) > 0 {
		_, a.err = w.Write(a.buffer.bytes)
	}
	a.buffer.bytes = a.buffer.bytes[:0]
}

// flush sends everything to the client.
func (a *streamAnswer) flush() {
	a.write()
	if a.err == nil {
		a.err = a.connection.Flush()
		_ = a.connection.SetWriteDeadline(time.Time{}) // the next answer may be a minute away
	}
}

// appendLineNumber adds the number of the line to the object at the end of b.
func appendLineNumber(b []byte, number int64) []byte {
	b = strconv.AppendInt(append(b[:len(b)-1], `,"line":`...), number, 10)
	return append(b, '}')
}
