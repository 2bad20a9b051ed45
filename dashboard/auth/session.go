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
	// sessionLife is a working day. Afterwards the password is needed again, however active the user was.
	sessionLife = 12 * time.Hour
	// maxKept bounds the sessions in memory. Those in Redis are bounded by their TTL and the limit of sign-ins.
	maxKept = 1024
	// endEvery is the time between two attempts to end sessions in Redis that were signed out while it did not answer.
	endEvery = 2 * time.Second
	// storeTimeout bounds each call to Redis. After that, the process uses its own memory.
	storeTimeout = 500 * time.Millisecond

	sessionPrefix = "aw:session:"
)

// session belongs to one cookie.
type session struct {
	User string `json:"user"`
	// Credential identifies the user's password: it changes with that.
	Credential string    `json:"credential"`
	Ends       time.Time `json:"ends"`

	shared bool // Redis has had it, so it ends when Redis does not have it any more
	over   bool // signed out, but Redis may still have it

	ended <-chan struct{} // closed when it ends; only sessions in memory have it
	end   func()          // closes it
}

// sessions are in Redis, by the hash of their token, so that they outlive a restart and hold for every dashboard on that Redis. Whoever
// can write to Redis can do all that an operator can. A process also keeps the sessions that it has seen in memory, so that an outage
// of Redis, when operators need the dashboard most, signs nobody out. A sign-out in that time ends the session in Redis later.
type sessions struct {
	redis  redis.Cmdable
	prefix string // begins the names of its keys
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	kept map[string]session // by key in Redis
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
		s.log.Warn("redis does not take a session, so it holds for this process only", "user", user.Name, "error", err)
	}
	one.shared = err == nil
	s.keep(s.name(token), one)
	return token
}

// find returns the session of a token, if that has not ended.
func (s *sessions) find(ctx context.Context, token string) (session, bool) {
	if len(token) != tokenLength {
		return session{}, false
	}
	name := s.name(token)
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

// end ends the session of a token. After an error it has ended in this process, and run ends it in Redis later.
func (s *sessions) end(ctx context.Context, token string) error {
	name := s.name(token)
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

// remove ends a session in Redis, and then in memory.
func (s *sessions) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.redis.Del(ctx, name).Err(); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	s.forget(name)
	return nil
}

// run ends sessions in Redis that end could not, until ctx is done.
func (s *sessions) run(ctx context.Context) {
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

// owed returns the names of sessions that are over, but that Redis may still have.
func (s *sessions) owed() []string {
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

func (s *sessions) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

// drop forgets a session. The caller holds mu.
func (s *sessions) drop(name string) {
	if one, known := s.kept[name]; known {
		one.end()
		delete(s.kept, name)
	}
}

// keep stores a session in memory, and returns it with what memory had of it.
func (s *sessions) keep(name string, one session) session {
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

// makeRoom forgets sessions if there are too many: first those that have expired, then any, and at last those that are over but that Redis
// may still have. The caller holds mu.
func (s *sessions) makeRoom(except string) {
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

// tokenLength is the length of rand.Text.
const tokenLength = 26

// name is the key of a session in Redis. It does not tell the token to those who can read keys.
func (s *sessions) name(token string) string {
	sum := sha256.Sum256([]byte(token))
	return s.prefix + sessionPrefix + hex.EncodeToString(sum[:])
}

// credential identifies a password of a user.
func credential(u User) string {
	sum := sha256.Sum256([]byte(u.Name + ":" + u.Hash))
	return hex.EncodeToString(sum[:8])
}
