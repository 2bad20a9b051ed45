package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// sessionLife is a working day: then the password is asked for again, whatever was done meanwhile.
	sessionLife = 12 * time.Hour
	// maxKept bounds the sessions that a process remembers. Those in Redis are bounded by their life and the pace of sign-ins.
	maxKept = 1024
	// storeTimeout bounds each call to Redis: past it, the process goes by what it remembers.
	storeTimeout = 500 * time.Millisecond

	sessionPrefix = "aw:session:"
)

// session is what is known of a cookie.
type session struct {
	User string `json:"user"`
	// Credential changes with the user's password.
	Credential string    `json:"credential"`
	Ends       time.Time `json:"ends"`

	shared bool // Redis has had it, so it ends when Redis has it no more
	over   bool // signed out, and Redis may not know
}

// Sessions are who is signed in. They are in Redis, by the hash of their token, so that they outlive a restart and hold for
// every dashboard on that Redis; whoever can write to Redis can do all that an operator can. A process also remembers those
// that it has seen, so that a Redis that is away, which is when a dashboard is looked at, signs nobody out.
type Sessions struct {
	redis redis.Cmdable
	log   *slog.Logger
	now   func() time.Time

	mu   sync.Mutex
	kept map[string]session // by name in Redis
}

func newSessions(client redis.Cmdable, log *slog.Logger, now func() time.Time) *Sessions {
	return &Sessions{redis: client, log: log, now: now, kept: make(map[string]session)}
}

// begin returns the token of a new session.
func (s *Sessions) begin(ctx context.Context, user User) (token string) {
	token = rand.Text() // 128 bits and more
	one := session{User: user.Name, Credential: credential(user), Ends: s.now().Add(sessionLife)}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	text, err := json.Marshal(one)
	if err == nil {
		err = s.redis.Set(ctx, sessionName(token), text, sessionLife).Err()
	}
	if err != nil {
		s.log.Warn("redis does not take a session, so it holds for this process only", "user", user.Name, "error", err)
	}
	one.shared = err == nil
	s.keep(sessionName(token), one)
	return token
}

// find returns the session of a token, if it has one that has not ended.
func (s *Sessions) find(ctx context.Context, token string) (session, bool) {
	if len(token) != tokenLength {
		return session{}, false
	}
	name := sessionName(token)
	s.mu.Lock()
	kept, known := s.kept[name]
	s.mu.Unlock()
	if known && (kept.over || !kept.shared) {
		return kept, !kept.over && s.now().Before(kept.Ends)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	text, err := s.redis.Get(ctx, name).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		s.forget(name)
		return session{}, false
	case err != nil:
		return kept, known && s.now().Before(kept.Ends)
	}
	var found session
	if err := json.Unmarshal(text, &found); err != nil {
		return session{}, false
	}
	found.shared = true
	s.keep(name, found)
	return found, s.now().Before(found.Ends)
}

// end ends the session of a token. After an error it has ended for this process; others may still take it.
func (s *Sessions) end(ctx context.Context, token string) error {
	name := sessionName(token)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.redis.Del(ctx, name).Err(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if one, known := s.kept[name]; known {
			one.over = true
			s.kept[name] = one
		}
		return fmt.Errorf("end a session: %w", err)
	}
	s.forget(name)
	return nil
}

func (s *Sessions) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, name)
}

// keep remembers a session, instead of another if there are too many: of those that have ended, else any.
func (s *Sessions) keep(name string, one session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if already, known := s.kept[name]; known && already.over {
		return
	}
	s.kept[name] = one
	if len(s.kept) <= maxKept {
		return
	}
	for other, held := range s.kept {
		if !s.now().Before(held.Ends) {
			delete(s.kept, other)
		}
	}
	for other := range s.kept {
		if len(s.kept) <= maxKept {
			return
		}
		if other != name {
			delete(s.kept, other)
		}
	}
}

// tokenLength is that of rand.Text.
const tokenLength = 26

// sessionName is where Redis has the session of a token: who reads Redis's keys does not learn a token.
func sessionName(token string) string {
	sum := sha256.Sum256([]byte(token))
	return sessionPrefix + hex.EncodeToString(sum[:])
}

// credential tells one password of a user from another.
func credential(u User) string {
	sum := sha256.Sum256([]byte(u.Name + ":" + u.Hash))
	return hex.EncodeToString(sum[:8])
}
