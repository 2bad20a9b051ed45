package auth

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

// Names of the cookie. With the prefix, browsers refuse a cookie that was not set over TLS, or that is for other hosts (RFC 6265bis).
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
	g.pages.SignIn(w, r, http.StatusOK, "", next)
}

// SignIn serves POST of SignInPath: name, password, next. Each right password begins a new session. A wrong password and an unknown
// name get the same answer, after the same work.
func (g *Gate) SignIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil || len(g.users) == 0 {
		g.pages.Reject(w, r, http.StatusBadRequest, "That is not a sign-in.")
		return
	}
	name, next := r.PostForm.Get("name"), localPath(r.PostForm.Get("next"))
	client := g.client(r)
	taken, wait := g.limits.take(client, name)
	if wait > 0 {
		seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
		w.Header().Set("Retry-After", seconds)
		g.pages.SignIn(w, r, http.StatusTooManyRequests, "Too many tries: wait "+seconds+" s.", next)
		return
	}
	user, right, err := g.passwords.check(r.Context(), name, r.PostForm.Get("password"))
	if err != nil {
		taken.wasNone()
		w.Header().Set("Retry-After", "5")
		g.pages.SignIn(w, r, http.StatusServiceUnavailable, "Too many sign-ins at once: try again in some seconds.", next)
		return
	}
	if !right {
		// An unknown name may be a password in the wrong field, so it is not logged.
		g.log.Warn("sign-in refused", "user", g.knownName(name), "address", client.String())
		g.pages.SignIn(w, r, http.StatusUnauthorized, "The name or the password is wrong.", next)
		return
	}
	taken.wasRight()
	if old := g.token(r); old != "" {
		_ = g.sessions.end(r.Context(), old) // it expires in any case
	}
	setCookie(w, g.proxies.secure(r), g.sessions.begin(r.Context(), user), int(sessionLife/time.Second))
	g.log.Info("signed in", "user", user.Name, "role", user.Role, "address", client.String())
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath has made it one of ours
}

// client returns the address that an attempt counts for.
func (g *Gate) client(r *http.Request) netip.Addr {
	client, told := g.proxies.Client(r)
	if !told {
		g.warnOnce.Do(func() {
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
		g.pages.Reject(w, r, http.StatusServiceUnavailable,
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

// token returns the token of the session, or "". Over TLS, only the cookie that was set over TLS counts.
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
	// Lax, not Strict: with Strict, following a link from a chat would lead to the sign-in. Requests that change something need the
	// same origin anyway.
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // without TLS there is only loopback, or what the operator chose
		Name: nameOfCookie(secure), Value: value, Path: "/", MaxAge: seconds,
		Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// nextQuery is the query of a sign-in that leads to the URL afterwards.
func nextQuery(u *url.URL) string {
	return url.Values{"next": {localPath(u.RequestURI())}}.Encode()
}

// localPath returns next if it is a path on this server, with its query, else "/". A link to a sign-in must not lead to another site.
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
