package load

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// maxAnswer is the maximum size of an answer in bytes.
const maxAnswer = 4 << 10

// connection sends requests one after the other. It is an HTTP/1.1 client that needs little CPU time, and supports only answers with
// a Content-Length.
type connection struct {
	address  string
	recorder *recorder
	request  func() []byte // builds the next request
	parse    func(b []byte) (status, length int, err error)
	due      chan time.Duration // times since the start, sorted
	buffer   [maxAnswer]byte

	mu      sync.Mutex
	conn    net.Conn // nil if there is no connection
	aborted bool
}

// use replaces the connection by conn. After abort it closes conn.
func (c *connection) use(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = conn
	if c.aborted && conn != nil {
		_ = conn.Close()
	}
}

// abort makes current and later requests fail.
func (c *connection) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

func (c *connection) isAborted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborted
}

// run sends requests when they are due, until due is closed. After giveUp it sends nothing, and requests count as failed.
func (c *connection) run(began, giveUp time.Time) {
	defer c.use(nil)
	free := time.Duration(0) // the time of the last answer
	for at := range c.due {
		if c.isAborted() {
			return
		}
		sent := time.Since(began)
		late := sent - at
		if free > at {
			late = -1
		}
		ok := time.Now().Before(giveUp) && c.exchange(earlier(time.Now().Add(answerPatience), giveUp))
		free = time.Since(began)
		c.recorder.record(free-at, late, ok)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// exchange sends one request, reads its answer, and reports whether the status is 2xx. If there is no connection it opens one.
func (c *connection) exchange(deadline time.Time) bool {
	if c.conn == nil {
		conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", c.address)
		if err != nil {
			return false
		}
		c.use(conn)
	}
	status, err := c.send(deadline)
	if err != nil {
		c.use(nil)
		return false
	}
	return status >= 200 && status < 300
}

func (c *connection) send(deadline time.Time) (status int, err error) {
	if err := c.conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.request()); err != nil {
		return 0, err
	}
	for have := 0; have < maxAnswer; {
		n, err := c.conn.Read(c.buffer[have:])
		have += n
		status, length, parseErr := c.parse(c.buffer[:have])
		switch {
		case parseErr != nil:
			return 0, parseErr
		case length > 0 && have >= length:
			return status, nil
		case err != nil:
			return 0, err
		}
	}
	return 0, io.ErrShortBuffer
}

var (
	errAnswer     = errors.New("the answer must be HTTP/1.1 with a Content-Length")
	headEnd       = []byte("\r\n\r\n")
	lengthHeader  = []byte("\r\nContent-Length: ") // the spelling of net/http
	answerVersion = []byte("HTTP/1.1 ")
)

// parseAnswer returns the status and the length of an answer, including its head. The length is 0 while the head is incomplete.
func parseAnswer(b []byte) (status, length int, err error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return 0, 0, nil
	}
	head := b[:end+2]
	if !bytes.HasPrefix(head, answerVersion) || len(head) < len(answerVersion)+3 {
		return 0, 0, errAnswer
	}
	status, err = strconv.Atoi(string(head[len(answerVersion) : len(answerVersion)+3]))
	if err != nil {
		return 0, 0, errAnswer
	}
	body := 0
	if _, rest, found := bytes.Cut(head, lengthHeader); found {
		text, _, _ := bytes.Cut(rest, headEnd[:2])
		if body, err = strconv.Atoi(string(text)); err != nil || body < 0 {
			return 0, 0, errAnswer
		}
	} else if status != 204 {
		return 0, 0, errAnswer
	}
	return status, end + len(headEnd) + body, nil
}

// parseReply is parseAnswer for INCRBY over the Redis protocol. An integer has the status 200, all else 500.
func parseReply(b []byte) (status, length int, err error) {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0:
		return 0, 0, nil
	case b[0] == ':':
		return 200, end + 1, nil
	}
	return 500, end + 1, nil
}
