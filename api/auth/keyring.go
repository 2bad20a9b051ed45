package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Options configure a Keyring.
type Options struct {
	// Keys are the API keys. None: everybody may read and write.
	Keys []Key
	// AdminToken is a further key, with the name "admin" and the scope admin only. Empty: there is none.
	AdminToken string
	// OperationsPerSec bounds each key, and all callers without a key together. 0: no limit.
	OperationsPerSec int
}

// Keyring holds the keys of an API.
type Keyring struct {
	open      bool // read and write need no key
	admin     *Key // of the admin token, or nil
	anonymous *Key // for requests that need no key
	rate      int

	current atomic.Pointer[set]
}

// set is the keys at one time. It does not change.
type set struct {
	byHash map[[sha256.Size]byte]*Key
	byName map[string]*Key
	scope  Scope // of all keys together
}

// New returns a Keyring, or an error if a key is also the admin token or has its name.
func New(o Options) (*Keyring, error) {
	r := &Keyring{open: len(o.Keys) == 0, rate: o.OperationsPerSec}
	r.anonymous = &Key{Scope: Read | Write, use: r.newUse()}
	if o.AdminToken != "" {
		r.admin = &Key{Name: AdminName, Scope: Admin, hash: sha256.Sum256([]byte(o.AdminToken)), use: r.newUse()}
	}
	r.current.Store(new(set))
	return r, r.Replace(o.Keys)
}

// Open returns a Keyring without keys: everybody may read and write, and nobody is an admin.
func Open() *Keyring {
	r, _ := New(Options{}) // fails only for keys
	return r
}

func (r *Keyring) newUse() *use {
	u := new(use)
	if r.rate > 0 {
		u.limit = rate.NewLimiter(rate.Limit(r.rate), burstSeconds*r.rate)
	}
	return u
}

// Replace replaces all keys but the admin token. A key whose name was there before keeps its count of requests and what is left of its
// rate. After an error, the keys are as before. It is for one caller at a time.
func (r *Keyring) Replace(keys []Key) error {
	before := r.current.Load()
	next := &set{byHash: make(map[[sha256.Size]byte]*Key, len(keys)+1), byName: make(map[string]*Key, len(keys)+1)}
	if r.admin != nil {
		next.add(r.admin)
	}
	for _, k := range keys {
		switch {
		case next.byName[k.Name] != nil:
			return fmt.Errorf("the name %s is used twice (%s is the name of AFTERWRITE_ADMIN_TOKEN)", k.Name, AdminName)
		case next.byHash[k.hash] != nil:
			return fmt.Errorf("%s has the same key as %s (%s is AFTERWRITE_ADMIN_TOKEN)", k.Name, next.byHash[k.hash].Name, AdminName)
		}
		if old := before.byName[k.Name]; old != nil {
			k.use = old.use
		} else {
			k.use = r.newUse()
		}
		next.add(&k)
	}
	r.current.Store(next)
	return nil
}

func (s *set) add(k *Key) {
	s.byHash[k.hash], s.byName[k.Name] = k, k
	s.scope |= k.Scope
}

// Any reports whether the settings have a key, or an admin token.
func (r *Keyring) Any() bool { return !r.open || r.admin != nil }

// Has reports whether a key has the scope at present.
func (r *Keyring) Has(scope Scope) bool { return r.current.Load().scope&scope != 0 }

// Admit returns the key of a request with these headers, which needs the scope, and counts the request. Without keys in the settings,
// reads and writes need no key and a sent one is ignored; the key is then nil, unless there is a rate. The error is for the client:
// CodeUnauthorized or CodeForbidden.
func (r *Keyring) Admit(h http.Header, scope Scope) (*Key, error) {
	if r.open && scope != Admin {
		r.anonymous.use.requests.Add(1)
		if r.rate == 0 {
			return nil, nil //nolint:nilnil // nothing bounds what the caller may do
		}
		return r.anonymous, nil
	}
	k := r.current.Load().find(h["Authorization"])
	switch {
	case k == nil:
		r.anonymous.use.requests.Add(1)
		return nil, errUnauthorized
	case scope == 0 || k.Scope&scope != scope:
		k.use.requests.Add(1)
		return nil, k.lacks(scope)
	}
	k.use.requests.Add(1)
	return k, nil
}

// Guest returns the key of a caller who has not sent one, and whether such callers may read and write: if the settings have no keys. The
// key is nil unless there is a rate.
func (r *Keyring) Guest() (key *Key, open bool) {
	if r.open && r.rate > 0 {
		return r.anonymous, true
	}
	return nil, r.open
}

// Login returns the key with this token. name is the key's, or "". Without keys in the settings, both are ignored, as Admit does. The
// error is CodeUnauthorized.
func (r *Keyring) Login(name, token string) (*Key, error) {
	if guest, open := r.Guest(); open {
		return guest, nil
	}
	k := r.current.Load().byToken(token)
	if k == nil || (name != "" && name != k.Name) {
		r.anonymous.use.requests.Add(1)
		return nil, errUnauthorized
	}
	return k, nil
}

// Count counts n requests of a key; nil: of callers without one.
func (r *Keyring) Count(k *Key, n int) {
	if k == nil {
		k = r.anonymous
	}
	k.use.requests.Add(int64(n))
}

// Again returns what has become of a key that Admit returned before, for requests that last: the key with its present scopes and
// prefix, or the error for the client if it was removed or lost the scope. It counts no request.
func (r *Keyring) Again(k *Key, scope Scope) (*Key, error) {
	if k == nil || k == r.anonymous {
		return k, nil
	}
	now := r.current.Load().byHash[k.hash]
	switch {
	case now == nil:
		return nil, errUnauthorized
	case now.Scope&scope != scope:
		return nil, now.lacks(scope)
	}
	return now, nil
}

// lacks returns the error for a key without a scope.
func (k *Key) lacks(scope Scope) error {
	return &counter.Error{Code: CodeForbidden, Detail: fmt.Sprintf("the API key %s lacks the scope %s", k.Name, scope)}
}

var errUnauthorized = &counter.Error{Code: CodeUnauthorized, Detail: "send Authorization: Bearer with an API key, once"}

// find returns the key in the values of the Authorization header, or nil. See the package comment about its timing.
func (s *set) find(given []string) *Key {
	if len(given) != 1 {
		return nil
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	k := s.byToken(strings.Trim(token, " \t"))
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	return k
}

// byToken returns the key with this token, or nil. See the package comment about its timing.
func (s *set) byToken(token string) *Key {
	var buffer [128]byte // keeps a key of usual length off the heap
	hash := sha256.Sum256(append(buffer[:0], token...))
	k, found := s.byHash[hash]
	compared := &dummy
	if found {
		compared = &k.hash
	}
	if subtle.ConstantTimeCompare(hash[:], compared[:]) != 1 || !found {
		return nil
	}
	return k
}

// dummy is compared with the hash of an unknown key.
var dummy [sha256.Size]byte
