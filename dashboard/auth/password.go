package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"
)

const (
	// newCost is the cost of new hashes. One takes 250 ms.
	newCost = 12

	// minPassword is in characters: the minimum of NIST (SP 800-63B-4), and the advice of OWASP, without a second factor.
	minPassword = 15
	// maxPassword is in bytes: bcrypt ignores the rest.
	maxPassword = 72

	// atOnce and inLine bound the passwords that are checked, and those that wait for that. Each takes a core for 250 ms.
	atOnce = 2
	inLine = 16
	// patience bounds the wait.
	patience = 3 * time.Second
)

// errBusy is returned while too many passwords are checked.
var errBusy = errors.New("too many sign-ins at once")

// HashPassword returns the bcrypt hash of a new password. It returns an error below 15 characters or above 72 bytes. It takes 250 ms.
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
	nobody  []byte // the hash to compare with for an unknown name
	line    *semaphore.Weighted
	working *semaphore.Weighted
}

func newPasswords(users []User) *passwords {
	p := &passwords{
		users: make(map[string]User, len(users)), line: semaphore.NewWeighted(inLine + atOnce), working: semaphore.NewWeighted(atOnce),
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

// check returns the user with that name and password, or false. It runs bcrypt once in both cases, so that its time does not tell which
// names exist. It returns errBusy if it would have to wait longer than 3 s.
func (p *passwords) check(ctx context.Context, name, password string) (User, bool, error) {
	if !p.line.TryAcquire(1) {
		return User{}, false, errBusy
	}
	defer p.line.Release(1)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.working.Acquire(ctx, 1); err != nil {
		return User{}, false, errBusy
	}
	defer p.working.Release(1)
	user, known := p.users[name]
	hash := p.nobody
	if known {
		hash = []byte(user.Hash)
	}
	// bcrypt compares only the first 72 bytes.
	fits := len(password) <= maxPassword
	if !fits {
		password = password[:maxPassword]
	}
	same := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	return user, known && fits && same, nil
}
