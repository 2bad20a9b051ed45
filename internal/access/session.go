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
	// endEvery is the time between two tries to end in Redis what was signed out while it was away.
	endEvery = 2 * time.Second
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

	ended <-chan struct{} // closed when it ends; only what is kept has one
	end   func()          // closes it
}

// Sessions are who is signed in. They are in Redis, by the hash of their token, so that they outlive a restart and hold for
// every dashboard on that Redis; whoever can write to Redis can do all that an operator can. A process also remembers those
// that it has seen, so that a Redis that is away, which is when a dashboard is looked at, signs nobody out. What is signed out then
// is ended in Redis when that is back.
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
	found = s.keep(name, found)
	return found, !found.over && s.now().Before(found.Ends)
}

// end ends the session of a token. After an error it has ended for this process, and run ends it for the others.
func (s *Sessions) end(ctx context.Context, token string) error {
	name := sessionName(token)
	if err := s.remove(ctx, name); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if one, known := s.kept[name]; known {
			one.over = true
			one.end()
			s.kept[name] = one
		}
		return err
	}
	return nil
}

// remove ends a session in Redis and then here.
func (s *Sessions) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.redis.Del(ctx, name).Err(); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	s.forget(name)
	return nil
}

// run ends in Redis what could not be ended there at once, until ctx is done.
func (s *Sessions) run(ctx context.Context) {
	ticker := time.NewTicker(endEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, name := range s.owed() {
			if err := s.remove(ctx, name); err != nil {
				break // Redis is still away
			}
			s.log.Info("a session was ended in redis, some time after its sign-out")
		}
	}
}

// owed are the names of sessions that are over, and that Redis may still have.
func (s *Sessions) owed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, one := range s.kept {
		if one.over {
			names = append(names, name)
		}
	}
	return names
}

func (s *Sessions) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

// drop needs mu.
func (s *Sessions) drop(name string) {
	if one, known := s.kept[name]; known {
		one.end()
		delete(s.kept, name)
	}
}

// keep remembers a session, and returns it as it is known here.
func (s *Sessions) keep(name string, one session) session {
	s.mu.Lock()
	defer s.mu.Unlock()
	already, known := s.kept[name]
	if known && already.over {
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

// makeRoom forgets sessions if there are too many: those that have ended, then any, and at last those that Redis does not know
// to be over. It needs mu.
func (s *Sessions) makeRoom(except string) {
	for _, may := range []func(session) bool{
		func(one session) bool { return !s.now().Before(one.Ends) },
		func(one session) bool { return !one.over },
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
