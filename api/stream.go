package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// streamLimits bound one stream.
type streamLimits struct {
	line   time.Duration // for each line to arrive; the client may pause as long as this
	write  time.Duration // for the client to read the answers to one group
	linger time.Duration // how long to read on after the answer ended early, so that the client can still read it
}

func defaultStreamLimits() streamLimits {
	return streamLimits{line: time.Minute, write: 30 * time.Second, linger: time.Second}
}

const (
	// maxStreams bounds the open streams. One holds up to 1.5 MB, and 9 MiB more for the window of a zstd body.
	maxStreams = 64
	// maxGroupLines bounds the operations that are carried out at a time. The next group arrives meanwhile.
	maxGroupLines = 1000
	// MaxLineBytes is the limit for one line. It is enough for an operation whose key and ID are escaped completely.
	MaxLineBytes = 64 << 10
	// maxStreamPause bounds the pause of a stream after operations were rejected for lack of room.
	maxStreamPause = time.Second
)

// The media types of a stream. The first is that of the answer.
const (
	mimeNDJSON      = "application/x-ndjson"
	mimePlainNDJSON = "application/ndjson"
)

// stream carries out one operation a line while the lines arrive, and answers with a line for each. It reads ahead one group of
// lines and no more, so its memory does not depend on the length. After the status was sent, errors are lines.
func (s *server) stream(c echo.Context) error {
	prefers, options, coding, err := readStreamHeaders(c)
	if err != nil {
		return err
	}
	if s.Shutdown.Err() != nil {
		return errStopping
	}
	if err := spend(c, 1); err != nil { // also for a stream without lines; each group takes its own operations
		return err
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return overloaded("too many streams are open; nothing was applied")
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()

	// An operation that was read is carried out, even if the client disconnects.
	c.SetRequest(c.Request().WithContext(context.WithoutCancel(c.Request().Context())))
	key := keyOf(c)
	size := maxGroupLines
	if burst := key.Burst(); burst > 0 {
		size = min(size, burst) // so that a group does not wait for its rate for longer than the burst takes
	}
	in := startIntake(c, coding, size, s.streamLimits)
	defer in.stop()
	defer context.AfterFunc(s.Shutdown, func() { in.finish(errStopping) })()

	answer := newStreamAnswer(c, prefers, s.streamLimits.write)
	answer.begin()
	var group lines
	for more := true; more && answer.err == nil; {
		group, more = in.next(group)
		if len(group.plan) == 0 {
			break
		}
		if err := s.permitGroup(key, group.plan); err != nil {
			in.drop(err)
			break
		}
		results := s.carryOut(c, group.plan, options)
		s.countFailures(c, results)
		answer.results(group, results)
		if more {
			s.pauseStream(results)
		}
	}
	answer.end(in.failure())
	return nil
}

var errStopping = &counter.Error{
	Code: counter.CodeOverloaded, RetryAfter: time.Second,
	Detail: "the process is stopping: send the other lines again, to another process",
}

// readStreamHeaders reads what a stream needs to know before its first line.
func readStreamHeaders(c echo.Context) (prefers preferences, options writepath.Options, coding string, err error) {
	h := c.Request().Header
	if len(h[headerIdempotencyKey]) > 0 {
		return prefers, options, "", &counter.Error{
			Code:   counter.CodeInvalidIdempotencyKey,
			Detail: "a stream has no " + headerIdempotencyKey + ": give each operation an id",
		}
	}
	if err = withoutPreconditions(h); err != nil {
		return prefers, options, "", err
	}
	prefers = readPreferences(h)
	if options, err = prefers.options(); err != nil {
		return prefers, options, "", err
	}
	if coding, err = contentCoding(h); err != nil {
		c.Response().Header().Set(echo.HeaderAcceptEncoding, acceptedCodings)
		return prefers, options, "", err
	}
	return prefers, options, coding, checkMediaType(h, mimeNDJSON, mimePlainNDJSON)
}

// pauseStream waits if operations were rejected because there was no room for them: sending more at once would only get more
// rejections. It does not repeat them: that is the client's decision.
func (s *server) pauseStream(results []counter.Result) {
	var pause time.Duration
	for _, r := range results {
		if r.Err == nil {
			continue
		}
		if e := asProblem(r.Err); problems[e.Code].status == http.StatusServiceUnavailable && e.Code != counter.CodeNotDurable {
			pause = min(max(pause, e.RetryAfter, maxStreamPause/10), maxStreamPause)
		}
	}
	if pause == 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.Shutdown.Done():
	}
}
