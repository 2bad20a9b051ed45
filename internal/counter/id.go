package counter

import "fmt"

// MaxIDBytes bounds the length of an idempotency key.
const MaxIDBytes = 128

// ParseID checks an idempotency key from a client: 1 to MaxIDBytes bytes of printable ASCII, including spaces. Its error is an *Error with
// CodeInvalidIdempotencyKey.
func ParseID(s string) (string, error) {
	switch {
	case s == "":
		return "", invalidID("it is empty: it must have 1 to %d bytes", MaxIDBytes)
	case len(s) > MaxIDBytes:
		return "", invalidID("it has %d bytes: it must have 1 to %d", len(s), MaxIDBytes)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return "", invalidID("byte %d is not printable ASCII", i)
		}
	}
	return s, nil
}

func invalidID(format string, args ...any) error {
	return &Error{Code: CodeInvalidIdempotencyKey, Detail: "the idempotency key is invalid: " + fmt.Sprintf(format, args...)}
}
