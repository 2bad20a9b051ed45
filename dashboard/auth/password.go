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
	// newCost is the bcrypt cost of new hashes: 250 ms of CPU time.
	newCost = 12

	// minPassword is in characters: the minimum of NIST (SP 800-63B-4) and OWASP for sign-ins without a second factor.
	minPassword = 15
	// maxPassword is in bytes: bcrypt ignores the rest.
	maxPassword = 72

	// maxChecks bounds the concurrent password checks, each of which takes 250 ms of CPU time.
	maxChecks = 2
	// maxWaiting bounds the sign-ins that wait for a check.
	maxWaiting = 16
	// maxWait bounds their wait.
	maxWait = 3 * time.Second
)

// errBusy is returned if too many sign-ins are waiting.
var errBusy = errors.New("too many sign-ins at once")

// HashPassword returns the bcrypt hash of a new password, which must have at least 15 characters and at most 72 bytes. It takes 250 ms.
func HashPassword(password string) (string, error) {
	if len([]rune(password)) < minPassword || len(password) > maxPassword {
		return "", fmt.Errorf("a password must have at least %d characters and at most %d bytes", minPassword, maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), newCost)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return string(hash), nil
}

// passwords checks passwords, a few at a time.
type passwords struct {
	users  map[string]User
	decoy  []byte              // the hash that an unknown name is compared with: the costliest one
	queue  *semaphore.Weighted // waiting and running checks
	checks *semaphore.Weighted
}

func newPasswords(users []User) *passwords {
	p := &passwords{
		users:  make(map[string]User, len(users)),
		queue:  semaphore.NewWeighted(maxWaiting + maxChecks),
		checks: semaphore.NewWeighted(maxChecks),
	}
	highest := 0
	for _, u := range users {
		p.users[u.Name] = u
		if cost, err := bcrypt.Cost([]byte(u.Hash)); err == nil && cost > highest {
			highest, p.decoy = cost, []byte(u.Hash)
		}
	}
	return p
}

// check returns the user with that name and password, or false. It runs bcrypt once in both cases, so that its time does not reveal which
// names exist. It returns errBusy if maxWaiting others are waiting, or after maxWait.
func (p *passwords) check(ctx context.Context, name, password string) (User, bool, error) {
	if !p.queue.TryAcquire(1) {
		return User{}, false, errBusy
	}
	defer p.queue.Release(1)
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if err := p.checks.Acquire(ctx, 1); err != nil {
		return User{}, false, errBusy
	}
	defer p.checks.Release(1)
	user, known := p.users[name]
	hash := p.decoy
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
