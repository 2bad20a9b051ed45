package api

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// MaxRedrive is the most keys that one request may name: each takes up to five calls to Redis.
const MaxRedrive = 1000

// readRedrive reads what to redrive: the keys, or nil for all.
func readRedrive(c echo.Context) ([]counter.Key, error) {
	b, err := openBody(c, MaxBodyBytes, nil)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, invalidBody(`the body is empty: it takes {"keys": [...]} or {"all": true}`)
	}
	defer b.close()
	return b.redrive()
}

// redrive reads the whole body.
func (b *body) redrive() (keys []counter.Key, err error) {
	if err := b.begin(jsontext.KindBeginObject, "the body"); err != nil {
		return nil, err
	}
	all := false
	for b.json.PeekKind() != jsontext.KindEndObject {
		name, err := b.value()
		if err != nil {
			return nil, err
		}
		switch {
		case isString(name, "keys"):
			keys, err = b.keyList(MaxRedrive)
		case isString(name, "all"):
			all, err = true, b.isTrue("all")
		default:
			err = unknownField(name, "the body")
		}
		if err != nil {
			return nil, err
		}
	}
	if err := b.end(); err != nil {
		return nil, err
	}
	if all == (keys != nil) {
		return nil, invalidBody(`it takes either {"keys": [...]} or {"all": true}`)
	}
	return keys, nil
}

// keyList stops at the first key that is wrong, or one too many. It is never nil without an error.
func (b *body) keyList(most int) ([]counter.Key, error) {
	if err := b.begin(jsontext.KindBeginArray, "keys"); err != nil {
		return nil, err
	}
	var keys []counter.Key
	for b.json.PeekKind() != jsontext.KindEndArray {
		if len(keys) == most {
			return nil, &counter.Error{
				Code: counter.CodeTooManyOperations, Detail: fmt.Sprintf("there are more than the %d keys that it takes", most),
			}
		}
		value, err := b.value()
		if err != nil {
			return nil, err
		}
		key, err := keyOf(value)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, invalidBody("keys is empty: it takes 1 to %d", most)
	}
	_, err := b.json.ReadToken()
	return keys, b.wrap(err)
}

// isTrue expects true.
func (b *body) isTrue(field string) error {
	value, err := b.value()
	if err == nil && value.Kind() != jsontext.KindTrue {
		err = invalidBody("%s is %s: it takes true", field, excerpt(string(value)))
	}
	return err
}
