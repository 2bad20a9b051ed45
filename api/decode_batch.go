package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// planned is one operation of a batch: a valid Operation, or err, the reason why it cannot be carried out. If the key is
// missing or invalid, Key is empty.
type planned struct {
	counter.Operation

	err error
}

// operations reads the body of a batch. An error means that the request is invalid, and none of its operations may be applied.
func (b *body) operations() ([]planned, error) {
	var plan []planned
	err := b.whole(func(name jsontext.Value) (bool, error) {
		if !isString(name, "operations") {
			return false, nil
		}
		return true, b.list("operations", MaxOperations, func(index int) error {
			op, err := b.operation(index)
			plan = append(plan, op)
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(plan) == 0:
		return nil, invalidBody("operations is empty or missing: send 1 to %d", MaxOperations)
	}
	return plan, nil
}

// operation reads the operation at index.
func (b *body) operation(index int) (planned, error) {
	var o operationBody
	err := b.object(index, func(name jsontext.Value) (bool, error) {
		switch {
		case isString(name, "op"):
			return true, readField(b, &o.op, parseKind)
		case isString(name, "key"):
			return true, readField(b, &o.key, parseKey)
		case isString(name, fieldBy):
			return true, readField(b, &o.by, func(v jsontext.Value) (int64, error) { return integer(v, fieldBy) })
		case isString(name, fieldValue):
			return true, readField(b, &o.value, func(v jsontext.Value) (int64, error) { return integer(v, fieldValue) })
		case isString(name, "id"):
			return true, readField(b, &o.id, parseID)
		}
		return false, nil
	})
	if err != nil {
		return planned{}, err
	}
	return o.plan(), nil
}

// operationBody holds the fields of an operation in a batch.
type operationBody struct {
	op        field[counter.Kind]
	key       field[counter.Key]
	id        field[string]
	by, value field[int64]
}

// field is a field of an operation. If it is invalid, only its operation fails: the rest of the batch is carried out.
type field[T any] struct {
	value T
	err   error
	given bool
}

// readField reads the value of a field. It stores the error of an invalid value in f.err. It returns an error if the body cannot
// be read.
func readField[T any](b *body, f *field[T], parse func(jsontext.Value) (T, error)) error {
	value, err := b.value()
	if err == nil {
		f.given = true
		f.value, f.err = parse(value)
	}
	return err
}

// The fields that hold an amount.
const (
	fieldBy    = "by"
	fieldValue = "value"
)

// plan returns the operation that the fields describe. Its err is the first error in the fields.
func (o *operationBody) plan() planned {
	p := planned{Operation: counter.Operation{Key: o.key.value, Kind: o.op.value, ID: o.id.value}}
	switch {
	case !o.key.given:
		p.err = &counter.Error{Code: counter.CodeInvalidKey, Detail: "key is missing"}
	case o.key.err != nil:
		p.err = o.key.err
	case !o.op.given:
		p.err = invalidBody("op is missing: it must be increment, set or delete")
	case o.op.err != nil:
		p.err = o.op.err
	case o.id.err != nil:
		p.err = o.id.err
	default:
		p.Amount, p.err = o.amount()
	}
	return p
}

func (o *operationBody) amount() (int64, error) {
	kind := o.op.value
	switch {
	case kind == counter.Delete && (o.by.given || o.value.given):
		return 0, invalidBody("delete has no amount: remove by and value")
	case kind == counter.Increment && o.value.given:
		return 0, invalidBody("increment needs by, not value")
	case kind == counter.Set && o.by.given:
		return 0, invalidBody("set needs value, not by")
	case kind == counter.Set && !o.value.given:
		return 0, invalidBody("value is missing: set needs it")
	case kind == counter.Increment && !o.by.given:
		return 1, nil
	case kind == counter.Increment:
		return o.by.value, o.by.err
	default:
		return o.value.value, o.value.err
	}
}

func parseKind(value jsontext.Value) (counter.Kind, error) {
	for _, kind := range [...]counter.Kind{counter.Increment, counter.Set, counter.Delete} {
		if isString(value, kind.String()) {
			return kind, nil
		}
	}
	given := kindName(value.Kind())
	if value.Kind() == jsontext.KindString {
		given = excerpt(text(value))
	}
	return 0, invalidBody("op must be increment, set or delete, not %s", given)
}

func parseID(value jsontext.Value) (string, error) {
	if value.Kind() != jsontext.KindString {
		return "", &counter.Error{
			Code: counter.CodeInvalidIdempotencyKey, Detail: "id must be a string, not " + kindName(value.Kind()),
		}
	}
	return counter.ParseID(text(value))
}
