package resp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// parser finds the commands in the input of a connection. If one is not complete it keeps its place, so each byte is looked at once,
// however small the pieces are in which it arrives. It allocates nothing for what a header announces.
type parser struct {
	buffer     []byte
	start, end int // the input that belongs to no finished command is buffer[start:end]

	at      int    // where to continue, from start
	missing int    // arguments of the present command that have not been found; 0: its header has not been read
	size    int    // bytes of the present argument; -1: its header has not been read
	bounds  []span // the arguments found, from start
	args    [][]byte

	filled       bool // the last read has filled the buffer: more may wait
	maxArguments int
}

type span struct{ from, to int }

// protocolError is the error for input after which no command can be found. Its text is that of Redis where Redis has one.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

const (
	errArguments   protocolError = "invalid multibulk length"
	errBulk        protocolError = "invalid bulk length"
	errEnd         protocolError = "expected CRLF after the argument"
	errInline      protocolError = "too big inline request"
	errQuotes      protocolError = "unbalanced quotes in request"
	errCommandSize protocolError = "too big request: a command may have 256 KiB"
)

// next returns the arguments of the next command, until the next call of receive. more is true if it has not arrived completely. A command
// may have no arguments: it has no answer. Every error ends the connection.
func (p *parser) next() (args [][]byte, more bool, err error) {
	if p.missing == 0 {
		if p.start == p.end {
			return nil, true, nil
		}
		if p.buffer[p.start] != '*' {
			return p.inline()
		}
		n, found, err := p.number(errArguments)
		if err != nil || !found {
			return nil, !found, err
		}
		if n > p.maxArguments {
			return nil, false, protocolError(fmt.Sprintf("%s: a command may have %d arguments here", string(errArguments), p.maxArguments))
		}
		if n <= 0 {
			p.finish()
			return nil, false, nil
		}
		p.missing, p.size = n, -1
	}
	if found, err := p.arguments(); err != nil || !found {
		return nil, !found, err
	}
	p.args = p.args[:0]
	for _, b := range p.bounds {
		p.args = append(p.args, p.buffer[p.start+b.from:p.start+b.to:p.start+b.to])
	}
	p.finish()
	return p.args, false, nil
}

// arguments finds the missing arguments, and reports whether all have been found.
func (p *parser) arguments() (found bool, err error) {
	for p.missing > 0 {
		if p.size < 0 {
			if p.start+p.at == p.end {
				return false, nil
			}
			if c := p.buffer[p.start+p.at]; c != '$' {
				return false, protocolError(fmt.Sprintf("expected '$', got %q", c))
			}
			n, found, err := p.number(errBulk)
			if err != nil || !found {
				return false, err
			}
			if n < 0 {
				return false, errBulk
			}
			if n > maxArgumentBytes {
				return false, protocolError(fmt.Sprintf("%s: an argument may have %d bytes", string(errBulk), maxArgumentBytes))
			}
			p.size = n
		}
		if p.end-p.start-p.at < p.size+2 {
			return false, p.tooLarge()
		}
		to := p.at + p.size
		if p.buffer[p.start+to] != '\r' || p.buffer[p.start+to+1] != '\n' {
			return false, errEnd
		}
		p.bounds = append(p.bounds, span{p.at, to})
		p.at, p.size = to+2, -1
		p.missing--
	}
	return true, p.tooLarge()
}

// tooLarge returns an error if the present command is larger than allowed.
func (p *parser) tooLarge() error {
	if p.at > maxCommandBytes-maxArgumentBytes-2-maxHeaderBytes {
		return errCommandSize
	}
	return nil
}

// finish makes what follows the next command.
func (p *parser) finish() {
	p.start += p.at
	p.at, p.missing, p.bounds = 0, 0, p.bounds[:0]
	if p.start == p.end {
		p.start, p.end = 0, 0
	}
}

// maxHeaderBytes bounds the header of a command or an argument: a letter, a number of 64 bits with its sign, and CRLF.
const maxHeaderBytes = 23

// number reads the header at p.at: a letter, a number and CRLF. The number is small enough for all sums of this file.
func (p *parser) number(problem protocolError) (n int, found bool, err error) {
	rest := p.buffer[p.start+p.at : p.end]
	rest = rest[:min(len(rest), maxHeaderBytes)]
	line := bytes.IndexByte(rest, '\n')
	if line < 0 {
		if len(rest) == maxHeaderBytes {
			return 0, false, problem
		}
		return 0, false, nil
	}
	if line < 3 || rest[line-1] != '\r' {
		return 0, false, problem
	}
	digits, negative := rest[1:line-1], false
	if digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	if len(digits) == 0 || len(digits) > 9 {
		return 0, false, problem
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false, problem
		}
		n = 10*n + int(c-'0')
	}
	if negative {
		n = -n
	}
	p.at += line + 1
	return n, true, nil
}

// inline reads a command that is a line of text.
func (p *parser) inline() (args [][]byte, more bool, err error) {
	rest := p.buffer[p.start:p.end]
	line := bytes.IndexByte(rest, '\n')
	if line > maxInlineBytes || (line < 0 && len(rest) > maxInlineBytes) {
		return nil, false, errInline
	}
	if line < 0 {
		return nil, true, nil
	}
	p.at = line + 1
	text := bytes.TrimSuffix(rest[:line], []byte("\r"))
	p.args, err = words(p.args[:0], text)
	if err == nil && len(p.args) > p.maxArguments {
		err = errArguments
	}
	p.finish()
	return p.args, false, err
}

// words splits a line at its spaces, as redis-cli does: "a b" is one word with escapes, 'a b' one without. It overwrites the line.
func words(args [][]byte, line []byte) ([][]byte, error) {
	for {
		line = bytes.TrimLeft(line, " \t\x00")
		if len(line) == 0 {
			return args, nil
		}
		word, n, err := word(line)
		if err != nil {
			return nil, err
		}
		args, line = append(args, word), line[n:]
	}
}

// word returns the first word of a line, which does not begin with a space, and the number of bytes that it takes. An unescaped word is
// never longer, so it replaces the bytes that it is made of.
func word(line []byte) (word []byte, n int, err error) {
	word = line[:0]
	for n < len(line) {
		c := line[n]
		n++
		switch c {
		case ' ', '\t':
			return word, n, nil
		case '"', '\'':
			var used int
			if word, used, err = quoted(word, line[n:], c); err != nil {
				return nil, 0, err
			}
			return word, n + used, nil
		default:
			word = append(word, c)
		}
	}
	return word, n, nil
}

// quoted appends what is between the quotes to word, and returns the number of bytes that it takes with the closing quote.
func quoted(word, line []byte, quote byte) (_ []byte, n int, err error) {
	for n < len(line) {
		c := line[n]
		n++
		switch {
		case c == quote && n < len(line) && line[n] != ' ' && line[n] != '\t':
			return nil, 0, errQuotes
		case c == quote:
			return word, n, nil
		case c == '\\' && n < len(line):
			var used int
			c, used = unescape(line[n:], quote)
			n += used
		}
		word = append(word, c)
	}
	return nil, 0, errQuotes
}

// unescape returns the character that a backslash and rest mean in these quotes, and the number of bytes of rest that belong to it.
func unescape(rest []byte, quote byte) (c byte, used int) {
	c = rest[0]
	if quote == '\'' {
		if c == '\'' {
			return c, 1
		}
		return '\\', 0
	}
	if c == 'x' && len(rest) >= 3 {
		high, low := hexadecimal(rest[1]), hexadecimal(rest[2])
		if high >= 0 && low >= 0 {
			return byte(high<<4 | low), 3 //nolint:gosec // two digits
		}
	}
	if plain, ok := escapes[c]; ok {
		c = plain
	}
	return c, 1
}

var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'a': '\a'}

func hexadecimal(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// errBusy means that the budget for large commands is used up.
var errBusy = errors.New("TRYAGAIN overloaded: too many large commands are being received; the command was not applied")

// room returns the part of the buffer for the next read. It makes the buffer larger if a command does not fit, or if the last read has
// filled it. take takes n bytes from the budget for large commands, and reports whether they fit.
func (p *parser) room(take func(n int) bool) ([]byte, error) {
	if p.start > 0 {
		copy(p.buffer, p.buffer[p.start:p.end]) // the rest of a command, once for each read
		p.start, p.end = 0, p.end-p.start
	}
	size := len(p.buffer)
	switch {
	case size < usualBuffer && (p.filled || p.end == size):
		size = min(max(4*size, smallBuffer), usualBuffer)
	case p.end == size && size == usualBuffer:
		size = maxCommandBytes
		if !take(size) {
			return nil, errBusy
		}
	}
	if size > len(p.buffer) {
		larger := make([]byte, size)
		copy(larger, p.buffer[:p.end])
		p.buffer = larger
	}
	return p.buffer[p.end:], nil
}

// received adds the n bytes that were read into room.
func (p *parser) received(n int) {
	p.end += n
	p.filled = p.end == len(p.buffer)
}

// shrink releases the memory of a large command, once it is finished; the beginning of the next one may have arrived. give gives n bytes
// back to the budget.
func (p *parser) shrink(give func(n int)) {
	if len(p.buffer) <= usualBuffer || p.end-p.start > usualBuffer {
		return
	}
	give(len(p.buffer))
	usual := make([]byte, usualBuffer)
	p.end = copy(usual, p.buffer[p.start:p.end])
	p.buffer, p.start, p.bounds, p.args = usual, 0, slices.Clone(p.bounds), nil
}

// release gives back what the buffer has of the budget, at the end of the connection.
func (p *parser) release(give func(n int)) {
	if len(p.buffer) > usualBuffer {
		give(len(p.buffer))
	}
	p.buffer = nil
}
