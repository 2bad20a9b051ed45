package api

import (
	"cmp"

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
		case isString(name, "id"):
			return true, readField(b, &o.id, parseID)
		}
		known, err := o.readIncrement(b, name)
		if !known && err == nil {
			known, err = o.readSet(b, name)
		}
		if !known && err == nil && isString(name, "note") { // it is rare, so it comes last
			return true, readField(b, &o.note, parseNote)
		}
		return known, err
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
	id, note  field[string]
	by, value field[int64]
	min, max  field[int64]
}

// amount reads the body of an increment or a set, and sets the amount and the bounds of op.
func (b *body) amount(op *counter.Operation) error {
	var o operationBody
	err := b.whole(func(name jsontext.Value) (bool, error) {
		if op.Kind == counter.Set {
			return o.readSet(b, name)
		}
		return o.readIncrement(b, name)
	})
	if err != nil {
		return err
	}
	return o.amount(op)
}

// readIncrement reads a field of an increment. It returns false if name is another field.
func (o *operationBody) readIncrement(b *body, name jsontext.Value) (known bool, err error) {
	switch {
	case isString(name, fieldBy):
		return true, readInteger(b, &o.by, fieldBy)
	case isString(name, fieldMin):
		return true, readInteger(b, &o.min, fieldMin)
	case isString(name, fieldMax):
		return true, readInteger(b, &o.max, fieldMax)
	}
	return false, nil
}

// readSet reads a field of a set. It returns false if name is another field.
func (o *operationBody) readSet(b *body, name jsontext.Value) (known bool, err error) {
	if !isString(name, fieldValue) {
		return false, nil
	}
	return true, readInteger(b, &o.value, fieldValue)
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

// readInteger is readField for an integer.
func readInteger(b *body, f *field[int64], name string) error {
	value, err := b.value()
	if err == nil {
		f.given = true
		f.value, f.err = integer(value, name)
	}
	return err
}

// The fields that hold integers.
const (
	fieldBy    = "by"
	fieldValue = "value"
	fieldMin   = "min"
	fieldMax   = "max"
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
	case o.note.err != nil:
		p.err = o.note.err
	default:
		p.err = o.amount(&p.Operation)
	}
	if o.note.given {
		p.Origin = &counter.Origin{Note: o.note.value}
	}
	return p
}

// amount sets the amount and the bounds of op.
func (o *operationBody) amount(op *counter.Operation) error {
	bounded := o.min.given || o.max.given
	switch {
	case op.Kind == counter.Delete && (o.by.given || o.value.given):
		return invalidBody("delete has no amount: remove by and value")
	case op.Kind != counter.Increment && bounded:
		return invalidBody("only increment has bounds: remove min and max")
	case op.Kind == counter.Increment && o.value.given:
		return invalidBody("increment needs by, not value")
	case op.Kind == counter.Set && o.by.given:
		return invalidBody("set needs value, not by")
	case op.Kind == counter.Set && !o.value.given:
		return invalidBody(`value is missing: a set needs it, as in {"value": 42}`)
	case op.Kind == counter.Increment:
		return o.increment(op)
	}
	op.Amount = o.value.value
	return o.value.err
}

// increment sets the amount and the bounds of an increment.
func (o *operationBody) increment(op *counter.Operation) error {
	op.Amount = 1
	if o.by.given {
		op.Amount = o.by.value
	}
	if err := cmp.Or(o.by.err, o.min.err, o.max.err); err != nil || (!o.min.given && !o.max.given) {
		return err
	}
	c := counter.Unconditional()
	if o.min.given {
		c.Min = o.min.value
	}
	if o.max.given {
		c.Max = o.max.value
	}
	if c.Min > c.Max {
		return invalidBody("min must not be greater than max")
	}
	op.Condition = &c
	return nil
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

func parseNote(value jsontext.Value) (string, error) {
	if value.Kind() != jsontext.KindString {
		return "", invalidBody("note must be a string, not %s", kindName(value.Kind()))
	}
	return counter.ParseNote(text(value))
}
