package auth

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

	"github.com/afterwrite/afterwrite/internal/config"
)

// Identity is the sender of a request.
type Identity struct {
	Name string
	Role Role
	// SignedIn is true if the request has a session. Otherwise a proxy named the user, or the user is Local.
	SignedIn bool
	// Ended is closed when the session ends: at a sign-out in this process, or when it expires. It is nil without a session.
	Ended <-chan struct{}
}

// Local is the user's name if the dashboard is open, so reachable from this machine only.
const Local = "local"

// CanAct reports whether the visitor may change things.
func (i Identity) CanAct() bool { return i.Role == Operator }

type identityKey struct{}

// Of returns the sender of the request. Without a Gate before the handler, the identity has no role and may do nothing.
func Of(r *http.Request) Identity {
	identity, _ := r.Context().Value(identityKey{}).(Identity)
	return identity
}

// Pages are the pages that a Gate itself shows.
type Pages interface {
	// SignIn shows the sign-in form. wrong is the error of the last attempt, or "". next is the page to show after the sign-in.
	SignIn(w http.ResponseWriter, r *http.Request, status int, wrong, next string)
	// Reject explains why the request was rejected, and what to do.
	Reject(w http.ResponseWriter, r *http.Request, status int, why string)
}

// Options configure a Gate.
type Options struct {
	Address string // where the dashboard listens, host:port
	Users   []User

	Proxies   Proxies
	Header    string   // the header in which proxies name the user; "": none
	Operators []string // users named by a proxy that are operators

	Hosts  []string // accepted values of the Host header; none: any if users sign in, else only names of this machine
	Public []string // paths that need no sign-in

	Redis  redis.Cmdable // stores the sessions; the caller closes it
	Prefix string        // namespace of the Redis keys and of the cookie: "shop:", or ""
	Pages  Pages
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Gate admits or rejects requests before they reach the dashboard.
type Gate struct {
	users     map[string]User
	proxies   Proxies
	header    string
	operators []string
	hosts     []string
	public    []string
	sessions  *sessions
	passwords *passwords
	limits    *limits
	cookie    string // name of the cookie; over TLS, securePrefix precedes it
	pages     Pages
	log       *slog.Logger
	now       func() time.Time
	warnOnce  sync.Once // for the warning about a proxy without X-Forwarded-For
}

// ErrOpen is returned if everybody who reaches the dashboard could act.
var ErrOpen = errors.New("the dashboard would be open to everybody who can reach it")

// errRebound is returned if another site's page could send the user header, by DNS rebinding.
var errRebound = errors.New("AFTERWRITE_DASHBOARD_TRUSTED_PROXIES contains this machine's own address, so a web page in a browser here " +
	"could send the user header, from a name that resolves to 127.0.0.1: " +
	"set AFTERWRITE_DASHBOARD_HOSTS to the names that the proxy passes on in Host")

// Check returns ErrOpen if other machines can reach the address or a name in Hosts, and no sign-in is required. It returns other errors
// for settings that are unsafe or contradict each other.
func (o *Options) Check() error {
	open := o.Header == "" && len(o.Users) == 0
	switch {
	case o.Header != "" && len(o.Proxies) == 0:
		return errors.New("AFTERWRITE_DASHBOARD_USER_HEADER is accepted from trusted proxies only: " +
			"set AFTERWRITE_DASHBOARD_TRUSTED_PROXIES")
	case o.Header == "" && len(o.Operators) > 0:
		return errors.New("AFTERWRITE_DASHBOARD_OPERATORS needs AFTERWRITE_DASHBOARD_USER_HEADER: " +
			"users with a password get their role in AFTERWRITE_DASHBOARD_USERS")
	case o.Header != "" && o.Proxies.onThisMachine() && len(o.Hosts) == 0:
		return errRebound
	case open && !config.Loopback(o.Address):
		return fmt.Errorf("%w: %s", ErrOpen, o.Address)
	case open:
		for _, host := range o.Hosts {
			if !config.LoopbackName(hostName(host)) {
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
		sessions: newSessions(o.Redis, o.Prefix, o.Logger, o.Now), passwords: newPasswords(o.Users), limits: newLimits(o.Now),
		cookie: cookieName(o.Prefix), pages: o.Pages, log: o.Logger, now: o.Now,
	}
	for _, name := range o.Hosts {
		g.hosts = append(g.hosts, hostName(name))
	}
	for _, u := range o.Users {
		g.users[u.Name] = u
	}
	return g, nil
}

// open reports whether neither passwords nor a user header are configured.
func (g *Gate) open() bool { return len(g.users) == 0 && g.header == "" }

// Run deletes sessions from Redis that were signed out while Redis did not answer, until ctx is done.
func (g *Gate) Run(ctx context.Context) { g.sessions.run(ctx) }

// Handler passes permitted requests to next, with their Identity, and answers all others itself. It ignores the path, except for a few
// public ones, so no spelling of a path leads around it.
func (g *Gate) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.answersTo(r) {
			g.pages.Reject(w, r, http.StatusMisdirectedRequest,
				"This dashboard does not answer to that name. AFTERWRITE_DASHBOARD_HOSTS lists the names that it answers to.")
			return
		}
		if g.open() && forwarded(r) {
			g.pages.Reject(w, r, http.StatusForbidden,
				"This request came through a proxy, but this dashboard has no sign-in. Set AFTERWRITE_DASHBOARD_USERS, "+
					"or AFTERWRITE_DASHBOARD_TRUSTED_PROXIES and AFTERWRITE_DASHBOARD_USER_HEADER.")
			return
		}
		if g.open() && fromElsewhere(r) {
			g.pages.Reject(w, r, http.StatusForbidden,
				"This came from a page that is not on this machine, or through a proxy, but this dashboard has no sign-in. "+
					"Set AFTERWRITE_DASHBOARD_USERS.")
			return
		}
		identity, err := g.identify(r)
		if err != nil {
			g.log.Warn("invalid user header from a proxy", "error", err)
			g.pages.Reject(w, r, http.StatusBadRequest, "The proxy's user header is invalid: see the log of the dashboard process.")
			return
		}
		switch {
		case identity.Role != "":
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, identity)))
		case r.URL.RawPath == "" && slices.Contains(g.public, r.URL.Path):
			next.ServeHTTP(w, r)
		default:
			g.reject(w, r)
		}
	})
}

// identify returns the sender of the request. An Identity without a role may do nothing.
func (g *Gate) identify(r *http.Request) (Identity, error) {
	if g.open() {
		return Identity{Name: Local, Role: Operator}, nil
	}
	name, err := g.proxies.userFromHeader(r, g.header)
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
		return Identity{}, nil // the user was removed, or the password was changed
	}
	return Identity{Name: user.Name, Role: user.Role, SignedIn: true, Ended: found.ended}, nil
}

// reject answers requests without an identity. It redirects page loads to the sign-in.
func (g *Gate) reject(w http.ResponseWriter, r *http.Request) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case len(g.users) == 0:
		g.pages.Reject(w, r, http.StatusForbidden, "The proxy in front of this dashboard must name the user, but did not.")
	case reading && strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, SignInPath+"?"+nextQuery(r.URL), http.StatusSeeOther)
	default:
		g.pages.Reject(w, r, http.StatusUnauthorized, "Sign in first.")
	}
}

// Operators passes requests of operators to next, and rejects all others.
func (g *Gate) Operators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Of(r).CanAct() {
			g.pages.Reject(w, r, http.StatusForbidden, "Only operators may do that, but you are a viewer. Nothing was changed.")
			return
		}
		next.ServeHTTP(w, r)
	})
}
