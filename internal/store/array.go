package store

import (
	"encoding/binary"

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

// keyArray encodes a text[].
func keyArray[T any](items []T, key func(T) counter.Key) []byte {
	size := arrayHeader
	for _, item := range items {
		size += 4 + len(key(item))
	}
	b := appendHeader(make([]byte, 0, size), oidText, len(items))
	for _, item := range items {
		k := key(item)
		b = binary.BigEndian.AppendUint32(b, uint32(len(k))) //nolint:gosec // a key has counter.MaxKeyBytes at most
		b = append(b, k...)
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
