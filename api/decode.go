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

// Bodies are read as tokens, not into structs: decoding an unknown field name of 8 MiB allocates 125 MB with json/v2 and a
// struct, and 34 MB with tokens.

// whole reads a body that is one object with nothing after it. It calls read as object does.
func (b *body) whole(read func(name jsontext.Value) (known bool, err error)) error {
	if err := b.object(wholeBody, read); err != nil {
		return err
	}
	return b.end()
}

// wholeBody is the index that stands for the body itself in object and objectName.
const wholeBody = -1

// objectName returns the name of an object in errors: the body, or operations[index].
func (b *body) objectName(index int) string {
	if index == wholeBody {
		return b.name()
	}
	return "operations[" + strconv.Itoa(index) + "]"
}

// object reads an object. It calls read with each field's name, which is valid until the next read from b. read must read the
// field's value, or report that the name is unknown.
func (b *body) object(index int, read func(name jsontext.Value) (known bool, err error)) error {
	if kind := b.json.PeekKind(); kind != jsontext.KindBeginObject && kind != jsontext.KindInvalid {
		return invalidBody("%s must be an object, not %s", b.objectName(index), kindName(kind))
	}
	if _, err := b.json.ReadToken(); err != nil {
		return b.wrap(err)
	}
	for b.json.PeekKind() != jsontext.KindEndObject {
		name, err := b.value()
		if err != nil {
			return err
		}
		known, err := read(name)
		if err != nil {
			return err
		}
		if !known {
			return &counter.Error{
				Code: counter.CodeUnknownField, Detail: b.objectName(index) + " has an unknown field " + excerpt(text(name)),
			}
		}
	}
	_, err := b.json.ReadToken()
	return b.wrap(err)
}

// list reads a list. It calls read to read each element, and returns an error if there are more than limit elements.
func (b *body) list(name string, limit int, read func(index int) error) error {
	if kind := b.json.PeekKind(); kind != jsontext.KindBeginArray && kind != jsontext.KindInvalid {
		return invalidBody("%s must be a list, not %s", name, kindName(kind))
	}
	if _, err := b.json.ReadToken(); err != nil {
		return b.wrap(err)
	}
	for index := 0; b.json.PeekKind() != jsontext.KindEndArray; index++ {
		if index == limit {
			return &counter.Error{Code: counter.CodeTooManyOperations, Detail: fmt.Sprintf("there are more than %d %s", limit, name)}
		}
		if err := read(index); err != nil {
			return err
		}
	}
	_, err := b.json.ReadToken()
	return b.wrap(err)
}

// keys reads a list of 1 to limit keys. It stops at the first invalid key.
func (b *body) keys(limit int) (keys []counter.Key, err error) {
	err = b.list("keys", limit, func(int) error {
		value, err := b.value()
		if err != nil {
			return err
		}
		key, err := parseKey(value)
		keys = append(keys, key)
		return err
	})
	if err == nil && len(keys) == 0 {
		err = invalidBody("keys must have 1 to %d elements", limit)
	}
	return keys, err
}

// value reads a value of any kind, or the name of a field. The result is valid until the next read.
func (b *body) value() (jsontext.Value, error) {
	value, err := b.json.ReadValue()
	return value, b.wrap(err)
}

// end returns an error unless the body ends here.
func (b *body) end() error {
	_, err := b.json.ReadToken()
	switch {
	case err == nil:
		return invalidBody("there is data after the JSON object")
	case errors.Is(err, io.EOF) && b.source.err == nil:
		return nil
	default:
		return b.wrap(err)
	}
}

// wrap turns a read error into the error for the client. An error of the source takes precedence over err, because it is the
// cause.
func (b *body) wrap(err error) error {
	if err == nil {
		return nil
	}
	if tooMany, ok := errors.AsType[*http.MaxBytesError](b.source.err); ok {
		return tooLarge(tooMany.Limit)
	}
	if rejected, ok := errors.AsType[*counter.Error](b.source.err); ok {
		return rejected
	}
	if undecodable, ok := errors.AsType[*codingError](b.source.err); ok {
		return invalidBody("%s", undecodable.detail())
	}
	switch {
	case b.source.err != nil:
		return invalidBody("the body was incomplete or arrived too slowly")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalidBody("a field is given twice: %s", reason(err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return invalidBody("%s is not valid JSON: it ends too early", b.name())
	default:
		return invalidBody("%s is not valid JSON: %s", b.name(), reason(err))
	}
}

// maxReasonBytes bounds the text of a jsontext error in an answer, because it quotes client-supplied field names.
const maxReasonBytes = 200

// reason returns the text of a jsontext error, truncated to maxReasonBytes.
func reason(err error) string {
	s := strings.TrimPrefix(err.Error(), "jsontext: ")
	if len(s) > maxReasonBytes {
		s = strings.ToValidUTF8(s[:maxReasonBytes], "") + "..."
	}
	return s
}

func parseKey(value jsontext.Value) (counter.Key, error) {
	if value.Kind() != jsontext.KindString {
		return "", &counter.Error{Code: counter.CodeInvalidKey, Detail: "key must be a string, not " + kindName(value.Kind())}
	}
	return counter.ParseKey(text(value))
}

// integer parses value as an integer. It rejects 1.0 and 1e2, which are more often mistakes than intended.
func integer(value jsontext.Value, field string) (int64, error) {
	if value.Kind() != jsontext.KindNumber {
		return 0, invalidBody("%s must be an integer, not %s", field, kindName(value.Kind()))
	}
	if bytes.ContainsAny(value, ".eE") {
		return 0, invalidBody("%s must be an integer without fraction or exponent, not %s", field, excerpt(string(value)))
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, invalidBody("%s must be from -9223372036854775808 to 9223372036854775807", field)
	}
	return n, nil
}

// isString reports whether value is s as a JSON string. It copies value only if it has escapes.
func isString(value jsontext.Value, s string) bool {
	if value.Kind() != jsontext.KindString {
		return false
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		return text(value) == s
	}
	return string(value[1:len(value)-1]) == s
}

// text returns the unquoted JSON string. The decoder has checked that value is valid.
func text(value jsontext.Value) string {
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	unquoted, _ := jsontext.AppendUnquote(nil, value)
	return string(unquoted)
}

// kindName returns the name of a kind of JSON value for error messages.
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
