package resp

import (
	"strconv"
	"strings"
)

// The replies of RESP2 that RESP3 has too.

func appendHeader(b []byte, kind byte, n int64) []byte {
	b = strconv.AppendInt(append(b, kind), n, 10)
	return append(b, '\r', '\n')
}

func appendInt(b []byte, n int64) []byte { return appendHeader(b, ':', n) }
func appendArray(b []byte, n int) []byte { return appendHeader(b, '*', int64(n)) }
func appendOK(b []byte) []byte           { return append(b, "+OK\r\n"...) }

// appendSimple appends a text without line breaks.
func appendSimple(b []byte, text string) []byte {
	b = append(append(b, '+'), text...)
	return append(b, '\r', '\n')
}

func appendBulk[T string | []byte](b []byte, text T) []byte {
	b = appendHeader(b, '$', int64(len(text)))
	b = append(b, text...)
	return append(b, '\r', '\n')
}

// appendBulkInt appends a number as a string: the value of a counter.
func appendBulkInt(b []byte, n int64) []byte {
	var digits [20]byte
	return appendBulk(b, strconv.AppendInt(digits[:0], n, 10))
}

// oneLine replaces line breaks: they would end an error or a simple string.
var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func appendError(b []byte, text string) []byte {
	b = append(append(b, '-'), oneLine.Replace(text)...)
	return append(b, '\r', '\n')
}

// appendNull appends what a missing counter is in the client's version.
func (c *connection) appendNull(b []byte) []byte {
	if c.version == 3 {
		return append(b, "_\r\n"...)
	}
	return append(b, "$-1\r\n"...)
}

// appendMap appends the header of n pairs: RESP2 has no maps, but arrays of twice as many elements.
func (c *connection) appendMap(b []byte, n int) []byte {
	if c.version == 3 {
		return appendHeader(b, '%', int64(n))
	}
	return appendArray(b, 2*n)
}
