package auth

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Role is a user's role. Only an Operator may change things.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
)

// User signs in with a password.
type User struct {
	Name string
	Role Role
	Hash string // bcrypt
}

const (
	// maxUsers bounds the users. An installation with more should use a proxy that authenticates.
	maxUsers = 1000

	// minCost and maxCost bound bcrypt's cost: about 60 ms and 2 s to check a password on a CPU of 2026.
	minCost = 10
	maxCost = 15
)

// userName matches names, which appear in logs, in the environment and in headers.
var userName = regexp.MustCompile(`^[A-Za-z0-9._@+-]{1,64}$`)

// ParseUsers parses a comma-separated list of name:hash or name:role:hash. The default role is Viewer. The error never contains a hash.
func ParseUsers(list string) ([]User, error) {
	var users []User
	known := make(map[string]bool)
	for i, entry := range strings.Split(list, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		u, err := parseUser(entry)
		if err != nil {
			return nil, fmt.Errorf("user %d: %w", i+1, err)
		}
		if known[u.Name] {
			return nil, fmt.Errorf("user %d: %s is listed twice", i+1, u.Name)
		}
		known[u.Name] = true
		users = append(users, u)
	}
	if len(users) > maxUsers {
		return nil, fmt.Errorf("there are %d users, but the limit is %d", len(users), maxUsers)
	}
	return users, nil
}

func parseUser(entry string) (User, error) {
	u := User{Role: Viewer}
	parts := strings.Split(entry, ":")
	switch len(parts) {
	case 2:
		u.Name, u.Hash = parts[0], parts[1]
	case 3:
		u.Name, u.Role, u.Hash = parts[0], Role(parts[1]), parts[2]
	default:
		return User{}, errors.New("must be name:hash or name:role:hash, as `afterwrite dashboard hash-password` prints it")
	}
	if err := CheckName(u.Name); err != nil {
		return User{}, err
	}
	if u.Role != Viewer && u.Role != Operator {
		return User{}, fmt.Errorf("the role of %s must be viewer or operator", u.Name)
	}
	cost, err := bcrypt.Cost([]byte(u.Hash))
	if err != nil {
		return User{}, fmt.Errorf("the hash of %s must be a bcrypt hash (did a shell or a compose file expand the $ signs?)", u.Name)
	}
	if cost < minCost || cost > maxCost {
		return User{}, fmt.Errorf("the hash of %s has a cost of %d, but it must be %d to %d", u.Name, cost, minCost, maxCost)
	}
	return u, nil
}

// CheckName returns an error if name cannot be a user's name.
func CheckName(name string) error {
	if !userName.MatchString(name) {
		return errors.New("a name must be 1 to 64 characters long, from letters, digits and . _ @ + -")
	}
	return nil
}

// ParseNames parses a comma-separated list of names. The error never quotes an entry, which may contain a hash by mistake.
func ParseNames(list string) ([]string, error) {
	var names []string
	for i, name := range strings.Split(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("name %d: %w", i+1, err)
		}
		names = append(names, name)
	}
	return names, nil
}
