package world

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/process"
)

// restrictedName is the name, and the password, of the user of a World that is Restricted.
const restrictedName = "restricted"

// restrictedUser returns arguments for redis-server. It does not know its version, so they have only what all versions have.
func restrictedUser() []string {
	rules := "--user " + restrictedName + " on >" + restrictedName + " " + process.ACL("", &cache.Info{})
	return strings.Fields(rules)
}

// restrict returns the URL for that user.
func restrict(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", fmt.Errorf("parse the URL of redis: %w", err)
	}
	u.User = url.UserPassword(restrictedName, restrictedName)
	return u.String(), nil
}

// Refused returns the commands, keys and channels that Redis has refused to the user of a World that is Restricted.
func (s *Stage) Refused(ctx context.Context) ([]string, error) {
	log, err := s.Redis.ACLLog(ctx, 128).Result()
	if err != nil {
		return nil, fmt.Errorf("read the log of refused commands: %w", err)
	}
	refused := make([]string, 0, len(log))
	for _, entry := range log {
		refused = append(refused, entry.Reason+" "+entry.Object)
	}
	return refused, nil
}
