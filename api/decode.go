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

// Bodies are read as tokens, not into structs: an 8 MiB field name that a struct does not have takes 125 MB in json/v2, and
// 34 MB here.

// integerField reads the whole body: an object that holds the integer field, or nothing.
func (b *body) integerField(field string) (n int64, found bool, err error) {
	err = b.whole(func(name jsontext.Value) (bool, error) {
		if !isString(name, field) {
			return false, nil
		}
		value, err := b.value()
		if err == nil {
			found = true
			n, err = integer(value, field)
		}
		return true, err
	})
	return n, found, err
}

// whole reads the whole body, an object; see object.
func (b *body) whole(field func(name jsontext.Value) (known bool, err error)) error {
	if err := b.object(wholeBody, field); err != nil {
		return err
	}
	return b.end()
}

// wholeBody is the index of the body's own object.
const wholeBody = -1

// place names the object at an index of operations, for errors.
func place(index int) string {
	if index == wholeBody {
		return "the body"
	}
	return "operations[" + strconv.Itoa(index) + "]"
}

// object calls field with the name of each field, which is valid until the next read. field reads the value, or reports that
// it does not know the name.
func (b *body) object(index int, field func(name jsontext.Value) (known bool, err error)) error {
	if kind := b.json.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindInvalid {
		return invalidBody("%s is %s: it takes an object", place(index), kindName(kind))
	}
	if _, err := b.json.ReadToken(); err != nil {
		return b.wrap(err)
	}
	for b.json.PeekKind() != jsontext.KindEndObject {
		name, err := b.value()
		if err != nil {
			return err
		}
		known, err := field(name)
		if err != nil {
			return err
		}
		if !known {
			return &counter.Error{
				Code: counter.CodeUnknownField, Detail: place(index) + " has an unknown field " + excerpt(text(name)),
			}
		}
	}
	_, err := b.json.ReadToken()
	return b.wrap(err)
}

// list calls element for each element of a list, which it reads. It stops at one more than most, so that memory is bounded.
func (b *body) list(name string, most int, element func(index int) error) error {
	if kind := b.json.PeekKind(); kind != jsontext.KindBeginArray && kind != jsontext.KindInvalid {
		return invalidBody("%s is %s: it takes a list", name, kindName(kind))
	}
	if _, err := b.json.ReadToken(); err != nil {
		return b.wrap(err)
	}
	for index := 0; b.json.PeekKind() != jsontext.KindEndArray; index++ {
		if index == most {
			return &counter.Error{
				Code: counter.CodeTooManyOperations, Detail: fmt.Sprintf("there are more than the %d %s that it takes", most, name),
			}
		}
		if err := element(index); err != nil {
			return err
		}
	}
	_, err := b.json.ReadToken()
	return b.wrap(err)
}

// keys reads a list of 1 to most keys. It stops at the first that is wrong.
func (b *body) keys(most int) (keys []counter.Key, err error) {
	err = b.list("keys", most, func(int) error {
		value, err := b.value()
		if err != nil {
			return err
		}
		key, err := keyOf(value)
		keys = append(keys, key)
		return err
	})
	if err == nil && len(keys) == 0 {
		err = invalidBody("keys is empty: it takes 1 to %d", most)
	}
	return keys, err
}

// value reads a value of any kind, or the name of a field. It is valid until the next read.
func (b *body) value() (jsontext.Value, error) {
	value, err := b.json.ReadValue()
	return value, b.wrap(err)
}

// end expects the end of the body.
func (b *body) end() error {
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

// wrap turns an error of reading into what the client is told: the connection's comes first, because it causes the others.
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

// maxReasonBytes bounds what is shown of an error of jsontext, which quotes client-supplied field names.
const maxReasonBytes = 200

func reason(err error) string {
	s := strings.TrimPrefix(err.Error(), "jsontext: ")
	if len(s) > maxReasonBytes {
		s = strings.ToValidUTF8(s[:maxReasonBytes], "") + "..."
	}
	return s
}

func keyOf(value jsontext.Value) (counter.Key, error) {
	if value.Kind() != jsontext.KindString {
		return "", &counter.Error{
			Code: counter.CodeInvalidKey, Detail: "key is " + kindName(value.Kind()) + ": it takes a string",
		}
	}
	return counter.ParseKey(text(value))
}

// integer returns the integer that value is. It refuses 1.0 and 1e2: what does not look like an integer is more often a
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

// text returns what a JSON string says. The decoder has checked value.
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
