package api

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// planned is one operation of a batch as it was asked for: one that can be carried out, or the reason why not. Its Key is
// empty where that is the reason.
type planned struct {
	counter.Operation

	err error
}

// operations reads the whole body of a batch. An error is one of the request, and nothing of it may be applied.
func (b *body) operations() ([]planned, error) {
	if err := b.begin(jsontext.KindBeginObject, "the body"); err != nil {
		return nil, err
	}
	var plan []planned
	for b.json.PeekKind() != jsontext.KindEndObject {
		name, err := b.value()
		if err != nil {
			return nil, err
		}
		if !isString(name, "operations") {
			return nil, unknownField(name, "the body")
		}
		if plan, err = b.operationList(); err != nil {
			return nil, err
		}
	}
	if err := b.end(); err != nil {
		return nil, err
	}
	if len(plan) == 0 {
		return nil, invalidBody("operations is empty or missing: it takes 1 to %d", MaxOperations)
	}
	return plan, nil
}

// operationList stops at the first operation that is too many, so that what is kept in memory is bounded.
func (b *body) operationList() ([]planned, error) {
	if err := b.begin(jsontext.KindBeginArray, "operations"); err != nil {
		return nil, err
	}
	var plan []planned
	for b.json.PeekKind() != jsontext.KindEndArray {
		if len(plan) == MaxOperations {
			return nil, &counter.Error{
				Code:   counter.CodeTooManyOperations,
				Detail: fmt.Sprintf("the batch has more than the %d operations that it may have", MaxOperations),
			}
		}
		op, err := b.operation(len(plan))
		if err != nil {
			return nil, err
		}
		plan = append(plan, op)
	}
	_, err := b.json.ReadToken()
	return plan, b.wrap(err)
}

// operation reads the operation at index.
func (b *body) operation(index int) (planned, error) {
	if b.json.PeekKind() != jsontext.KindBeginObject { // else no name is made for it
		err := b.begin(jsontext.KindBeginObject, operationName(index))
		return planned{}, err
	}
	if _, err := b.json.ReadToken(); err != nil {
		return planned{}, b.wrap(err)
	}
	var f operationFields
	for b.json.PeekKind() != jsontext.KindEndObject {
		field, err := b.operationField(index)
		if err != nil {
			return planned{}, err
		}
		value, err := b.value()
		if err != nil {
			return planned{}, err
		}
		f.set(field, value)
	}
	_, err := b.json.ReadToken()
	return f.plan(), b.wrap(err)
}

// The fields of an operation.
const (
	fieldOp    = "op"
	fieldKey   = "key"
	fieldBy    = "by"
	fieldValue = "value"
	fieldID    = "id"
)

func (b *body) operationField(index int) (string, error) {
	name, err := b.value()
	if err != nil {
		return "", err
	}
	for _, field := range [...]string{fieldOp, fieldKey, fieldBy, fieldValue, fieldID} {
		if isString(name, field) {
			return field, nil
		}
	}
	return "", unknownField(name, operationName(index))
}

func operationName(index int) string {
	return fmt.Sprintf("operations[%d]", index)
}

// operationFields collects the fields of an operation, which come in any order, and what is wrong with each.
type operationFields struct {
	kind                       counter.Kind
	key                        counter.Key
	id                         string
	by, value                  int64
	kindErr, keyErr, idErr     error
	byErr, valueErr            error
	hasOp, hasKey, hasBy, hasV bool
}

func (f *operationFields) set(field string, value jsontext.Value) {
	switch field {
	case fieldOp:
		f.hasOp = true
		f.kind, f.kindErr = kindOf(value)
	case fieldKey:
		f.hasKey = true
		f.key, f.keyErr = keyOf(value)
	case fieldBy:
		f.hasBy = true
		f.by, f.byErr = integer(value, fieldBy)
	case fieldValue:
		f.hasV = true
		f.value, f.valueErr = integer(value, fieldValue)
	case fieldID:
		f.id, f.idErr = idOf(value)
	}
}

// plan makes an operation of the fields, or names the first thing that is wrong with them.
func (f *operationFields) plan() planned {
	p := planned{Operation: counter.Operation{Key: f.key, Kind: f.kind, ID: f.id}}
	switch {
	case !f.hasKey:
		p.err = &counter.Error{Code: counter.CodeInvalidKey, Detail: "key is missing"}
	case f.keyErr != nil:
		p.err = f.keyErr
	case !f.hasOp:
		p.err = invalidBody("op is missing: it takes increment, set or delete")
	case f.kindErr != nil:
		p.err = f.kindErr
	case f.idErr != nil:
		p.err = f.idErr
	default:
		p.Amount, p.err = f.amount()
	}
	return p
}

func (f *operationFields) amount() (int64, error) {
	switch {
	case f.kind == counter.Delete && (f.hasBy || f.hasV):
		return 0, invalidBody("delete takes no amount")
	case f.kind == counter.Increment && f.hasV:
		return 0, invalidBody("increment takes by, not value")
	case f.kind == counter.Set && f.hasBy:
		return 0, invalidBody("set takes value, not by")
	case f.kind == counter.Set && !f.hasV:
		return 0, invalidBody("value is missing: set needs it")
	case f.kind == counter.Increment && !f.hasBy:
		return 1, nil
	case f.kind == counter.Increment:
		return f.by, f.byErr
	default:
		return f.value, f.valueErr
	}
}

func kindOf(value jsontext.Value) (counter.Kind, error) {
	for _, kind := range [...]counter.Kind{counter.Increment, counter.Set, counter.Delete} {
		if isString(value, kind.String()) {
			return kind, nil
		}
	}
	if value.Kind() != jsontext.KindString {
		return 0, invalidBody("op is %s: it takes increment, set or delete", kindName(value.Kind()))
	}
	return 0, invalidBody("op is %s: it takes increment, set or delete", excerpt(text(value)))
}

func idOf(value jsontext.Value) (string, error) {
	if value.Kind() != jsontext.KindString {
		return "", &counter.Error{
			Code: counter.CodeInvalidIdempotencyKey, Detail: "id is " + kindName(value.Kind()) + ": it takes a string",
		}
	}
	return counter.ParseID(text(value))
}

func keyOf(value jsontext.Value) (counter.Key, error) {
	if value.Kind() != jsontext.KindString {
		return "", &counter.Error{
			Code: counter.CodeInvalidKey, Detail: "key is " + kindName(value.Kind()) + ": it takes a string",
		}
	}
	return counter.ParseKey(text(value))
}
