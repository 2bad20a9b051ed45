package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// newCost is that of new hashes: 250 ms.
	newCost = 12

	// minPassword is OWASP's advice for passwords without a second factor is 15 characters; NIST's least (SP 800-63B-4).
	minPassword = 15
	// maxPassword is where bcrypt stops reading, bytes.
	maxPassword = 72

	// atOnce and inLine bound the passwords that are checked, and that wait for it: one takes a core for 250 ms.
	atOnce = 2
	inLine = 16
	// patience bounds the wait.
	patience = 3 * time.Second
)

// errBusy says that too many passwords are being checked.
var errBusy = errors.New("too many sign-ins at once")

// HashPassword returns the bcrypt hash of a new password of 15 characters to 72 bytes.
func HashPassword(password string) (string, error) {
	if len([]rune(password)) < minPassword || len(password) > maxPassword {
		return "", fmt.Errorf("a password takes %d characters at least, and %d bytes at most", minPassword, maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), newCost)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return string(hash), nil
}

// passwords checks passwords, a few at a time.
type passwords struct {
	users   map[string]User
	nobody  []byte // the hash that is compared with for a name that there is not
	line    chan struct{}
	working chan struct{}
}

func newPasswords(users []User) *passwords {
	p := &passwords{
		users: make(map[string]User, len(users)), line: make(chan struct{}, inLine+atOnce), working: make(chan struct{}, atOnce),
	}
	dearest := 0
	for _, u := range users {
		p.users[u.Name] = u
		if cost, err := bcrypt.Cost([]byte(u.Hash)); err == nil && cost > dearest {
			dearest, p.nobody = cost, []byte(u.Hash)
		}
	}
	return p
}

// check returns the user of that name and password, or false, after one run of bcrypt in either case, so that the time does
// not tell which names there are. errBusy when it would take too long.
func (p *passwords) check(ctx context.Context, name, password string) (User, bool, error) {
	select {
	case p.line <- struct{}{}:
		defer func() { <-p.line }()
	default:
		return User{}, false, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case p.working <- struct{}{}:
		defer func() { <-p.working }()
	case <-ctx.Done():
		return User{}, false, errBusy
	}
	user, known := p.users[name]
	hash := p.nobody
	if known {
		hash = []byte(user.Hash)
	}
	// bcrypt would take what agrees in the first 72 bytes.
	fits := len(password) <= maxPassword
	if !fits {
		password = password[:maxPassword]
	}
	same := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	return user, known && fits && same, nil
}
