package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// integerField reads the whole body: an object that holds the integer field, or nothing.
func (b *body) integerField(field string) (n int64, found bool, err error) {
	if err := b.begin(jsontext.KindBeginObject, "the body"); err != nil {
		return 0, false, err
	}
	for b.json.PeekKind() != jsontext.KindEndObject {
		name, err := b.value()
		if err != nil {
			return 0, false, err
		}
		if !isString(name, field) {
			return 0, false, unknownField(name, "the body")
		}
		value, err := b.value()
		if err != nil {
			return 0, false, err
		}
		if n, err = integer(value, field); err != nil {
			return 0, false, err
		}
		found = true
	}
	return n, found, b.end()
}

// begin reads the opening of an object or a list, what it says being called what in errors.
func (b *body) begin(kind jsontext.Kind, what string) error {
	if got := b.json.PeekKind(); got != kind && got != jsontext.KindInvalid {
		return invalidBody("%s is %s: it takes %s", what, kindName(got), kindName(kind))
	}
	_, err := b.json.ReadToken()
	return b.wrap(err)
}

// value reads a value of any kind, or the name of a field. It is valid until the next read.
func (b *body) value() (jsontext.Value, error) {
	value, err := b.json.ReadValue()
	return value, b.wrap(err)
}

// end reads the closing of the body's object, after which nothing may come.
func (b *body) end() error {
	if _, err := b.json.ReadToken(); err != nil {
		return b.wrap(err)
	}
	_, err := b.json.ReadToken()
	switch {
	case err == nil:
		return invalidBody("there is more after the end of the JSON object")
	case errors.Is(err, io.EOF) && b.source.err == nil:
		return nil
	default:
		return b.wrap(err)
	}
}

// wrap turns an error of reading into what the client is told: the connection's comes first, whose consequence the
// others are.
func (b *body) wrap(err error) error {
	if err == nil {
		return nil
	}
	if tooMany, ok := errors.AsType[*http.MaxBytesError](b.source.err); ok {
		return tooLarge(tooMany.Limit)
	}
	if refused, ok := errors.AsType[*counter.Error](b.source.err); ok {
		return refused
	}
	switch {
	case b.source.err != nil:
		return invalidBody("the body did not arrive whole, or not in time")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalidBody("a field is there twice: %s", reason(err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return invalidBody("the body is not valid JSON: it ends too early")
	default:
		return invalidBody("the body is not valid JSON: %s", reason(err))
	}
}

// maxReasonBytes leaves room for the place that jsontext names, whose names of fields are the client's and may be long.
const maxReasonBytes = 200

func reason(err error) string {
	s := strings.TrimPrefix(err.Error(), "jsontext: ")
	if len(s) > maxReasonBytes {
		s = strings.ToValidUTF8(s[:maxReasonBytes], "") + "..."
	}
	return s
}

// integer returns the integer that value is. 1.0 and 1e2 are none: what does not look like an integer is more often a
// mistake of the client than meant.
func integer(value jsontext.Value, field string) (int64, error) {
	if value.Kind() != jsontext.KindNumber {
		return 0, invalidBody("%s is %s: it takes an integer", field, kindName(value.Kind()))
	}
	if bytes.ContainsAny(value, ".eE") {
		return 0, invalidBody("%s is %s: it takes an integer, without fraction or exponent", field, excerpt(string(value)))
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, invalidBody("%s is out of range: it takes -9223372036854775808 to 9223372036854775807", field)
	}
	return n, nil
}

// isString reports whether value is the JSON string of s, without a copy unless it has escapes.
func isString(value jsontext.Value, s string) bool {
	if value.Kind() != jsontext.KindString {
		return false
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		return text(value) == s
	}
	return string(value[1:len(value)-1]) == s
}

// text returns what a JSON string says. value has been checked by the reader.
func text(value jsontext.Value) string {
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	unquoted, _ := jsontext.AppendUnquote(nil, value)
	return string(unquoted)
}

// kindName names a kind of JSON value in a sentence.
func kindName(kind jsontext.Kind) string {
	switch kind {
	case jsontext.KindNull:
		return "null"
	case jsontext.KindTrue, jsontext.KindFalse:
		return "a boolean"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindBeginObject:
		return "an object"
	case jsontext.KindBeginArray:
		return "a list"
	default:
		return "not a value"
	}
}

func invalidBody(format string, args ...any) error {
	return &counter.Error{Code: counter.CodeInvalidBody, Detail: fmt.Sprintf(format, args...)}
}

func unknownField(name jsontext.Value, where string) error {
	return &counter.Error{
		Code: counter.CodeUnknownField, Detail: fmt.Sprintf("%s has an unknown field %s", where, excerpt(text(name))),
	}
}
