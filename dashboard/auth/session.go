package auth

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
	// sessionLife is about a working day. After that the user must sign in again, even if active.
	sessionLife = 12 * time.Hour
	// maxKept bounds the sessions in memory. Those in Redis are bounded by their TTL and the sign-in limits.
	maxKept = 1024
	// retryDeleteEvery is how often to retry the deletion of signed-out sessions from Redis.
	retryDeleteEvery = 2 * time.Second
	// storeTimeout bounds each call to Redis. After it, the process uses the sessions in its memory.
	storeTimeout = 500 * time.Millisecond

	sessionPrefix = "aw:session:"
)

// session belongs to one cookie.
type session struct {
	User string `json:"user"`
	// Credential identifies the user's password, so a new password ends the session.
	Credential string    `json:"credential"`
	Ends       time.Time `json:"ends"`

	shared    bool // stored in Redis, so the session ends when Redis no longer has it
	signedOut bool // signed out, but Redis may still have it

	ended <-chan struct{} // closed when the session ends; set for sessions in memory only
	end   func()          // closes ended
}

// sessions stores sessions in Redis, by the hash of their token, so that they survive a restart and are valid in every dashboard process.
// Each process also keeps its sessions in memory, so that an outage of Redis, when operators need the dashboard most, signs nobody out.
// A sign-out during the outage is repeated in Redis later. Anybody who can write to Redis can do what an operator can.
type sessions struct {
	redis  redis.Cmdable
	prefix string // prefix of the Redis keys
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	kept map[string]session // by Redis key
}

func newSessions(client redis.Cmdable, prefix string, log *slog.Logger, now func() time.Time) *sessions {
	return &sessions{redis: client, prefix: prefix, log: log, now: now, kept: make(map[string]session)}
}

// begin starts a session, and returns its token.
func (s *sessions) begin(ctx context.Context, user User) (token string) {
	token = rand.Text() // 128 bits and more
	one := session{User: user.Name, Credential: credential(user), Ends: s.now().Add(sessionLife)}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	text, err := json.Marshal(one)
	if err == nil {
		err = s.redis.Set(ctx, s.name(token), text, sessionLife).Err()
	}
	if err != nil {
		s.log.Warn("a session could not be stored in redis, so it is valid in this process only", "user", user.Name, "error", err)
	}
	one.shared = err == nil
	s.keep(s.name(token), one)
	return token
}

// find returns the session of a token, unless it has ended.
func (s *sessions) find(ctx context.Context, token string) (session, bool) {
	if len(token) != tokenLength {
		return session{}, false
	}
	name := s.name(token)
	s.mu.Lock()
	kept, known := s.kept[name]
	s.mu.Unlock()
	if known && (kept.signedOut || !kept.shared) {
		return kept, !kept.signedOut && s.now().Before(kept.Ends)
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
	found = s.keep(name, found)
	return found, !found.signedOut && s.now().Before(found.Ends)
}

// end ends the session of a token. After an error it has ended in this process only, and run deletes it from Redis later.
func (s *sessions) end(ctx context.Context, token string) error {
	name := s.name(token)
	err := s.remove(ctx, name)
	if err != nil && len(token) == tokenLength { // find accepts no other token
		s.signOut(name)
	}
	return err
}

// signOut marks a session as signed out. It does so for unknown sessions, too: Redis may have them.
func (s *sessions) signOut(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.kept[name]
	if !known {
		one = session{Ends: s.now().Add(sessionLife), end: func() {}}
	}
	one.signedOut = true
	one.end()
	s.kept[name] = one
	s.makeRoom(name)
}

// remove deletes a session from Redis, then from memory.
func (s *sessions) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.redis.Del(ctx, name).Err(); err != nil {
		return fmt.Errorf("delete a session: %w", err)
	}
	s.forget(name)
	return nil
}

// Until ctx is done, run deletes from Redis the sessions that end could not delete.
func (s *sessions) run(ctx context.Context) {
	ticker := time.NewTicker(retryDeleteEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, name := range s.undeleted() {
			if err := s.remove(ctx, name); err != nil {
				break // Redis still does not answer
			}
			s.log.Info("a signed-out session was deleted from redis after an outage")
		}
	}
}

// undeleted returns the Redis keys of sessions that were signed out, but not deleted from Redis.
func (s *sessions) undeleted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, one := range s.kept {
		if one.signedOut {
			names = append(names, name)
		}
	}
	return names
}

func (s *sessions) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

// drop deletes a session from memory. The caller holds mu.
func (s *sessions) drop(name string) {
	if one, known := s.kept[name]; known {
		one.end()
		delete(s.kept, name)
	}
}

// keep stores a session in memory, and returns it. A known session keeps its channel, and a signed-out one remains signed out.
func (s *sessions) keep(name string, one session) session {
	s.mu.Lock()
	defer s.mu.Unlock()
	already, known := s.kept[name]
	if known && already.signedOut {
		return already
	}
	if known {
		one.ended, one.end = already.ended, already.end
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), one.Ends.Sub(s.now()))
		one.ended, one.end = ctx.Done(), cancel
	}
	s.kept[name] = one
	s.makeRoom(name)
	return one
}

// makeRoom drops sessions beyond maxKept: first expired ones, then any that were not signed out, then the rest. The caller holds mu.
func (s *sessions) makeRoom(except string) {
	for _, may := range []func(session) bool{
		func(one session) bool { return !s.now().Before(one.Ends) },
		func(one session) bool { return !one.signedOut },
		func(session) bool { return true },
	} {
		for name, one := range s.kept {
			if len(s.kept) <= maxKept {
				return
			}
			if name != except && may(one) {
				s.drop(name)
			}
		}
	}
}

// tokenLength is the length of rand.Text.
const tokenLength = 26

// name returns the Redis key of a session. Its hash hides the token from anybody who can list keys.
func (s *sessions) name(token string) string {
	sum := sha256.Sum256([]byte(token))
	return s.prefix + sessionPrefix + hex.EncodeToString(sum[:])
}

// credential identifies a user's password.
func credential(u User) string {
	sum := sha256.Sum256([]byte(u.Name + ":" + u.Hash))
	return hex.EncodeToString(sum[:8])
}
