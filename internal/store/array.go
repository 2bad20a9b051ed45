package store

import (
	"encoding/binary"
	"math"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// A batch is sent as one array per column, in the binary format of Postgres's array_recv (lib/pq sends a []byte as a binary
// parameter, see parseDSN):
//
//	int32 dimensions (1), int32 has-nulls flag (0), uint32 element type
//	int32 number of elements, int32 index of the first (1)
//	and for each element: int32 length, the bytes
//
// All numbers are in network byte order. Nothing is quoted or escaped, so no key can be misread. It costs less than pq.Array's text
// in client and server (figures in upsert.go).
const arrayHeader = 20

// Element types. pg_type.oid is fixed for built-in types.
const (
	oidBool = 16
	oidInt8 = 20
	oidText = 25
)

func appendHeader(b []byte, element uint32, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, element)
	b = binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // n is MaxBatch at most
	return binary.BigEndian.AppendUint32(b, 1)
}

// keyArray encodes a text[] of keys.
func keyArray[T any](items []T, key func(T) counter.Key) []byte { return textArray(items, key) }

// textArray encodes a text[].
func textArray[T any, S ~string](items []T, text func(T) S) []byte {
	size := arrayHeader
	for _, item := range items {
		size += 4 + len(text(item))
	}
	b := appendHeader(make([]byte, 0, size), oidText, len(items))
	for _, item := range items {
		s := text(item)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // a key has counter.MaxKeyBytes at most
		b = append(b, s...)
	}
	return b
}

// int64Array encodes a bigint[].
func int64Array[T any](items []T, number func(T) int64) []byte {
	b := appendHeader(make([]byte, 0, arrayHeader+12*len(items)), oidInt8, len(items))
	for _, item := range items {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(number(item))) //nolint:gosec // two's complement is the format
	}
	return b
}

// nullableArray encodes a bigint[]; number reports false for NULL.
func nullableArray[T any](items []T, number func(T) (int64, bool)) []byte {
	b := appendHeader(make([]byte, 0, arrayHeader+12*len(items)), oidInt8, len(items))
	binary.BigEndian.PutUint32(b[4:], 1) // there may be NULLs
	for _, item := range items {
		if n, ok := number(item); ok {
			b = binary.BigEndian.AppendUint32(b, 8)
			b = binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // two's complement is the format
		} else {
			b = binary.BigEndian.AppendUint32(b, math.MaxUint32) // length -1
		}
	}
	return b
}

// boolArray encodes a boolean[].
func boolArray[T any](items []T, flag func(T) bool) []byte {
	b := appendHeader(make([]byte, 0, arrayHeader+5*len(items)), oidBool, len(items))
	for _, item := range items {
		b = binary.BigEndian.AppendUint32(b, 1)
		if flag(item) {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}
