package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Identity is who a request is from.
type Identity struct {
	Name string
	Role Role
	// SignedIn is true for a session, which can be ended. Else a proxy vouches, or it is this machine's own user.
	SignedIn bool
	// Ended is closed when the session ends: at its sign-out here, or after its time. nil, which never is, without one.
	Ended <-chan struct{}
}

// Local is this machine's own user, where nobody signs in.
const Local = "local"

// May reports whether somebody may change things.
func (i Identity) May() bool { return i.Role == Operator }

type identityKey struct{}

// Of returns who the request is from. Without a Gate before it, it is nobody, who may do nothing.
func Of(r *http.Request) Identity {
	identity, _ := r.Context().Value(identityKey{}).(Identity)
	return identity
}

// Answers are the pages that a Gate shows instead of those behind it.
type Answers interface {
	// SignIn asks for a name and a password. wrong is what was wrong with the last ones, "" at first; next is where to go then.
	SignIn(w http.ResponseWriter, r *http.Request, status int, wrong, next string)
	// Refuse says why not, and what to do.
	Refuse(w http.ResponseWriter, r *http.Request, status int, why string)
}

// Options are what a Gate is made of.
type Options struct {
	Address string // where the dashboard listens, host:port
	Users   []User

	Proxies   Proxies
	Header    string   // in which the proxies name the user; "" where they do not
	Operators []string // those of the names in it who may act

	Hosts  []string // names that the dashboard answers to; none: any where somebody signs in, else this machine's own
	Public []string // paths that need no sign-in

	Redis   redis.Cmdable // keeps the sessions; stays the caller's to close
	Answers Answers
	Logger  *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Gate stands before the dashboard.
type Gate struct {
	users     map[string]User
	proxies   Proxies
	header    string
	operators []string
	hosts     []string
	public    []string
	sessions  *Sessions
	passwords *passwords
	limits    *limits
	answers   Answers
	log       *slog.Logger
	now       func() time.Time
	untold    sync.Once // warns of a proxy that does not say whose requests it passes on
}

// ErrOpen says that everybody could act.
var ErrOpen = errors.New("the dashboard would be open to everybody who can reach it")

// errRebound says that a page of somebody else's could act.
var errRebound = errors.New("AFTERWRITE_DASHBOARD_TRUSTED_PROXIES holds this machine's own address, so a page that a browser here shows " +
	"could say who it is as well, from a name that resolves to 127.0.0.1: " +
	"set AFTERWRITE_DASHBOARD_HOSTS to the names that the proxy passes on in Host")

// Check returns ErrOpen when the address or a host's name can be reached from other machines and nobody would have to sign in,
// and another error for settings that are not safe, or make no sense.
func (o *Options) Check() error {
	open := o.Header == "" && len(o.Users) == 0
	switch {
	case o.Header != "" && len(o.Proxies) == 0:
		return errors.New("a user header counts from trusted proxies only, and none is named")
	case o.Header == "" && len(o.Operators) > 0:
		return errors.New("operators are names of the user header, and none is set; those who sign in have their role beside their name")
	case o.Header != "" && o.Proxies.onThisMachine() && len(o.Hosts) == 0:
		return errRebound
	case open && !Loopback(o.Address):
		return fmt.Errorf("%w: %s", ErrOpen, o.Address)
	case open:
		for _, host := range o.Hosts {
			if !localName(hostName(host)) {
				return fmt.Errorf("%w: as %s", ErrOpen, host)
			}
		}
	}
	return nil
}

// New returns a Gate, or the error of Check.
func New(o Options) (*Gate, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Gate{
		users: make(map[string]User), proxies: o.Proxies, header: http.CanonicalHeaderKey(o.Header), operators: o.Operators,
		public:   append([]string{SignInPath}, o.Public...),
		sessions: newSessions(o.Redis, o.Logger, o.Now), passwords: newPasswords(o.Users), limits: newLimits(o.Now),
		answers: o.Answers, log: o.Logger, now: o.Now,
	}
	for _, name := range o.Hosts {
		g.hosts = append(g.hosts, hostName(name))
	}
	for _, u := range o.Users {
		g.users[u.Name] = u
	}
	return g, nil
}

// open reports that nobody signs in.
func (g *Gate) open() bool { return len(g.users) == 0 && g.header == "" }

// Run ends sessions in Redis that were signed out while it was away, until ctx is done.
func (g *Gate) Run(ctx context.Context) { g.sessions.run(ctx) }

// Handler lets through to next who may look, with their Identity, and answers everybody else. Paths do not matter to it but
// for the few that are public, so no way of writing one leads around it.
func (g *Gate) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.knows(r) {
			g.answers.Refuse(w, r, http.StatusMisdirectedRequest,
				"This dashboard does not answer to that name. AFTERWRITE_DASHBOARD_HOSTS says which names it answers to.")
			return
		}
		if g.open() && forwarded(r) {
			g.answers.Refuse(w, r, http.StatusForbidden,
				"This request came through a proxy, and nobody signs in here. Set AFTERWRITE_DASHBOARD_USERS, "+
					"or AFTERWRITE_DASHBOARD_TRUSTED_PROXIES and AFTERWRITE_DASHBOARD_USER_HEADER.")
			return
		}
		if g.open() && elsewhere(r) {
			g.answers.Refuse(w, r, http.StatusForbidden,
				"This came from a page that is not on this machine, or through a proxy, and nobody signs in here. "+
					"Set AFTERWRITE_DASHBOARD_USERS.")
			return
		}
		identity, err := g.identify(r)
		if err != nil {
			g.log.Warn("a proxy's user header cannot be used", "error", err)
			g.answers.Refuse(w, r, http.StatusBadRequest, "The proxy's user header cannot be used: the log of this process says why.")
			return
		}
		switch {
		case identity.Role != "":
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, identity)))
		case r.URL.RawPath == "" && slices.Contains(g.public, r.URL.Path):
			next.ServeHTTP(w, r)
		default:
			g.turnAway(w, r)
		}
	})
}

// identify returns who the request is from; no role: nobody.
func (g *Gate) identify(r *http.Request) (Identity, error) {
	if g.open() {
		return Identity{Name: Local, Role: Operator}, nil
	}
	name, err := g.proxies.userNamed(r, g.header)
	if err != nil {
		return Identity{}, err
	}
	if name != "" {
		role := Viewer
		if slices.Contains(g.operators, name) {
			role = Operator
		}
		return Identity{Name: name, Role: role}, nil
	}
	found, ok := g.sessions.find(r.Context(), g.token(r))
	if !ok {
		return Identity{}, nil
	}
	user, ok := g.users[found.User]
	if !ok || credential(user) != found.Credential {
		return Identity{}, nil // removed, or with another password
	}
	return Identity{Name: user.Name, Role: user.Role, SignedIn: true, Ended: found.ended}, nil
}

// turnAway answers those who are nobody: a browser that wants a page is shown where to sign in.
func (g *Gate) turnAway(w http.ResponseWriter, r *http.Request) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case len(g.users) == 0:
		g.answers.Refuse(w, r, http.StatusForbidden, "The proxy in front of this dashboard has to say who you are, and it did not.")
	case reading && strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, SignInPath+"?"+nextQuery(r.URL), http.StatusSeeOther)
	default:
		g.answers.Refuse(w, r, http.StatusUnauthorized, "Sign in first.")
	}
}

// Operators lets through to next who may act, and refuses everybody else.
func (g *Gate) Operators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Of(r).May() {
			g.answers.Refuse(w, r, http.StatusForbidden, "That takes an operator, and you are a viewer: nothing was changed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}
