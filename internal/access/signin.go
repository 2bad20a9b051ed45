package access

import (
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Where the pages are.
const (
	SignInPath  = "/signin"
	SignOutPath = "/signout"
)

// maxForm bounds the body of a sign-in, bytes.
const maxForm = 4 << 10

// Names of the cookie. The prefix makes browsers refuse one that was not set over TLS, or was set for other hosts (RFC 6265bis).
const (
	cookieName       = "afterwrite"
	secureCookieName = "__Host-afterwrite"
)

// AskPassword serves GET of SignInPath.
func (g *Gate) AskPassword(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if Of(r).Role != "" || len(g.users) == 0 {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath has made it one of ours
		return
	}
	g.answers.SignIn(w, r, http.StatusOK, "", next)
}

// SignIn serves POST of SignInPath: name, password, next. A right password begins a session, and a new one each time. Wrong
// ones get the same answer, after the same work, whether there is such a user or not.
func (g *Gate) SignIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil || len(g.users) == 0 {
		g.answers.Refuse(w, r, http.StatusBadRequest, "That is not a sign-in.")
		return
	}
	name, next := r.PostForm.Get("name"), localPath(r.PostForm.Get("next"))
	client := g.client(r)
	taken, wait := g.limits.take(client, name)
	if wait > 0 {
		seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
		w.Header().Set("Retry-After", seconds)
		g.answers.SignIn(w, r, http.StatusTooManyRequests, "Too many tries: wait "+seconds+" s.", next)
		return
	}
	user, right, err := g.passwords.check(r.Context(), name, r.PostForm.Get("password"))
	if err != nil {
		taken.wasNone()
		w.Header().Set("Retry-After", "5")
		g.answers.SignIn(w, r, http.StatusServiceUnavailable, "Too many sign-ins at once: try again in some seconds.", next)
		return
	}
	if !right {
		// Who types a password into the field for the name does not want it in a log.
		g.log.Warn("sign-in refused", "user", g.knownName(name), "address", client.String())
		g.answers.SignIn(w, r, http.StatusUnauthorized, "The name or the password is wrong.", next)
		return
	}
	taken.wasRight()
	if old := g.token(r); old != "" {
		_ = g.sessions.end(r.Context(), old) // it ends by itself in any case
	}
	setCookie(w, g.proxies.secure(r), g.sessions.begin(r.Context(), user), int(sessionLife/time.Second))
	g.log.Info("signed in", "user", user.Name, "role", user.Role, "address", client.String())
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath has made it one of ours
}

// client is whose tries are counted.
func (g *Gate) client(r *http.Request) netip.Addr {
	client, told := g.proxies.Client(r)
	if !told {
		g.untold.Do(func() {
			g.log.Warn("a trusted proxy does not say whose requests it passes on, so all its visitors share the tries of one address: "+
				"have it set X-Forwarded-For", "proxy", client.String())
		})
	}
	return client
}

// SignOut serves POST of SignOutPath.
func (g *Gate) SignOut(w http.ResponseWriter, r *http.Request) {
	err := g.sessions.end(r.Context(), g.token(r))
	setCookie(w, g.proxies.secure(r), "", -1)
	if err != nil {
		g.log.Warn("a session could not be ended in redis", "user", Of(r).Name, "error", err)
		g.answers.Refuse(w, r, http.StatusServiceUnavailable,
			"You are signed out of this process. Redis does not answer, so until it does, other dashboard processes may still know the "+
				"session.")
		return
	}
	g.log.Info("signed out", "user", Of(r).Name)
	http.Redirect(w, r, SignInPath, http.StatusSeeOther)
}

func (g *Gate) knownName(name string) string {
	if _, known := g.users[name]; known {
		return name
	}
	return "(unknown)"
}

// token is the session's, "" where there is none. Over TLS only the cookie that was set over TLS counts.
func (g *Gate) token(r *http.Request) string {
	cookie, err := r.Cookie(nameOfCookie(g.proxies.secure(r)))
	if err != nil {
		return ""
	}
	return cookie.Value
}

func nameOfCookie(secure bool) string {
	if secure {
		return secureCookieName
	}
	return cookieName
}

func setCookie(w http.ResponseWriter, secure bool, value string, seconds int) {
	// Lax, not Strict: with Strict, who follows a link in a chat would be asked to sign in. What changes something needs the
	// same origin anyway.
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // without TLS there is only loopback, or what the operator chose
		Name: nameOfCookie(secure), Value: value, Path: "/", MaxAge: seconds,
		Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// nextQuery is the query that brings the visitor back to where they wanted to go.
func nextQuery(u *url.URL) string {
	return url.Values{"next": {localPath(u.RequestURI())}}.Encode()
}

// localPath returns next if it is a path of ours with its query, else "/": a link to a sign-in must not lead elsewhere.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") ||
		strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	clean := url.URL{Path: path.Clean(u.Path), RawQuery: u.RawQuery}
	if clean.Path == SignInPath || clean.Path == SignOutPath {
		return "/"
	}
	return clean.String()
}
