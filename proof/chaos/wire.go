package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// rawPool holds idle connections to one api that use the Redis protocol without a library.
type rawPool struct {
	addr string
	idle chan *rawConn
}

// rawConn is a connection of version 2 of the protocol.
type rawConn struct {
	net.Conn

	r *bufio.Reader
}

func newRawPool(addr string, connections int) *rawPool {
	return &rawPool{addr: addr, idle: make(chan *rawConn, connections)}
}

func (p *rawPool) close() {
	for {
		select {
		case c := <-p.idle:
			_ = c.Close()
		default:
			return
		}
	}
}

// take returns an idle connection that is still open, or a new one.
func (p *rawPool) take(ctx context.Context) (*rawConn, error) {
	for {
		select {
		case c := <-p.idle:
			if c.open() {
				return c, nil
			}
			_ = c.Close()
		default:
			conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", p.addr)
			if err != nil {
				return nil, err
			}
			return &rawConn{Conn: conn, r: bufio.NewReader(conn)}, nil
		}
	}
}

// open reports whether the api has not ended an idle connection.
func (c *rawConn) open() bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	_, err := c.r.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// send sends commands in a pipeline, in two pieces, and returns a result for each. After a broken connection, the commands without a
// reply have its error.
func (p *rawPool) send(ctx context.Context, commands [][]any) []result {
	results := make([]result, len(commands))
	read, err := p.exchange(ctx, commands, results)
	for i := read; i < len(results); i++ {
		results[i].err = err
	}
	return results
}

// exchange returns the number of replies that it has read.
func (p *rawPool) exchange(ctx context.Context, commands [][]any, results []result) (read int, err error) {
	c, err := p.take(ctx)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(requestTimeout))
	text := encodeCommands(commands)
	for _, piece := range []string{text[:len(text)/2], text[len(text)/2:]} {
		if _, err = io.WriteString(c, piece); err != nil {
			_ = c.Close()
			return 0, err
		}
	}
	for i := range results {
		if results[i], err = c.read(); err != nil {
			_ = c.Close()
			return i, err
		}
	}
	select {
	case p.idle <- c:
	default:
		_ = c.Close()
	}
	return len(results), nil
}

func encodeCommands(commands [][]any) string {
	var b strings.Builder
	for _, command := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(command))
		for _, arg := range command {
			text := fmt.Sprint(arg)
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(text), text)
		}
	}
	return b.String()
}

// replyError is an error that the api has answered.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

var _ redis.Error = replyError("")

// read reads the reply to one command. An error means that the connection is of no more use.
func (c *rawConn) read() (result, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return result{}, err
	}
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+':
		return result{reply: rest}, nil
	case '-':
		return result{err: replyError(rest)}, nil
	case ':':
		n, err := strconv.ParseInt(rest, 10, 64)
		return result{reply: n}, err
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return result{}, err
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(c.r, text)
		return result{reply: string(text[:n])}, err
	}
	return result{}, fmt.Errorf("unexpected reply %q", line)
}
