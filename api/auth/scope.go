package auth

import (
	"errors"
	"strings"
)

// Scope is a set of permissions. No permission includes another.
type Scope uint8

// The permissions.
const (
	Read  Scope = 1 << iota // read counters
	Write                   // change counters, and flush them
	Admin                   // the paths under /v1/admin

	// Public is the scope of a route that needs no key. A key cannot have it.
	Public
)

// scopes are the permissions that a key can have, in the order in which they are written.
var scopes = []struct {
	scope Scope
	name  string
}{{Read, "read"}, {Write, "write"}, {Admin, "admin"}}

// ParseScope parses names joined by "+". Its error does not quote text, which may contain a key by mistake.
func ParseScope(text string) (Scope, error) {
	var all Scope
next:
	for name := range strings.SplitSeq(text, "+") {
		for _, s := range scopes {
			if strings.TrimSpace(name) == s.name {
				all |= s.scope
				continue next
			}
		}
		return 0, errors.New("scopes must be read, write or admin, joined by +, such as read+write")
	}
	return all, nil
}

// String returns the names of the permissions, joined by "+".
func (s Scope) String() string {
	var names []string
	for _, one := range scopes {
		if s&one.scope != 0 {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, "+")
}
