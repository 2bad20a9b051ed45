package auth

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Codes of the errors of this package.
const (
	CodeUnauthorized counter.Code = "unauthorized" // no key, or an unknown one
	CodeForbidden    counter.Code = "forbidden"    // a known key that must not do this
	CodeRateLimited  counter.Code = "rate_limited" // the key's operations come too fast
)

// Key is an API key. Nil stands for a caller who needs none: it may use every counter, without a limit.
type Key struct {
	Name   string // "" for callers without a key
	Scope  Scope
	Prefix string // begins the keys of all counters that it may use; "": any

	hash [sha256.Size]byte
	use  *use
}

// use is what a Keyring keeps of a key while its settings change.
type use struct {
	requests atomic.Int64
	limit    *rate.Limiter // nil: no limit
}

// Has reports whether the key has the scope. Callers who need no key may read and write.
func (k *Key) Has(scope Scope) bool {
	if k == nil {
		return (Read|Write)&scope == scope
	}
	return k.Scope&scope == scope
}

// Covers reports whether the key may use the counter.
func (k *Key) Covers(key counter.Key) bool {
	return k == nil || strings.HasPrefix(string(key), k.Prefix)
}

// Check returns an error for the client if the key may not use the counter.
func (k *Key) Check(key counter.Key) error {
	if k.Covers(key) {
		return nil
	}
	return k.outside()
}

// Within returns the prefix of a list of counters: the requested one, or the key's own if none was requested. If the list would have
// counters that the key may not use, it returns an error for the client.
func (k *Key) Within(requested string) (prefix string, err error) {
	switch {
	case k == nil:
		return requested, nil
	case requested == "":
		return k.Prefix, nil
	case !strings.HasPrefix(requested, k.Prefix):
		return "", k.outside()
	}
	return requested, nil
}

// CheckAll returns an error for the client unless the key may use all counters.
func (k *Key) CheckAll() error {
	if k == nil || k.Prefix == "" {
		return nil
	}
	return k.outside()
}

func (k *Key) outside() error {
	return &counter.Error{
		Code:   CodeForbidden,
		Detail: fmt.Sprintf("the API key %s may only use counters whose key begins with %q", k.Name, k.Prefix),
	}
}
