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

// Paths of the sign-in and the sign-out.
const (
	SignInPath  = "/signin"
	SignOutPath = "/signout"
)

// maxForm bounds the body of a sign-in, in bytes.
const maxForm = 4 << 10

// securePrefix begins the name of a cookie that is set over TLS. Browsers refuse such a cookie without TLS or for another host
// (RFC 6265bis).
const securePrefix = "__Host-"

// cookieName returns the cookie's name without TLS: afterwrite, or afterwrite-shop for the prefix "shop:". Browsers send cookies to all
// ports of a host, so two dashboards on one host need different names.
func cookieName(prefix string) string {
	if prefix == "" {
		return "afterwrite"
	}
	return "afterwrite-" + strings.TrimSuffix(prefix, ":")
}

// AskPassword serves GET of SignInPath.
func (g *Gate) AskPassword(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if Of(r).Role != "" || len(g.users) == 0 {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath returns only paths of this server
		return
	}
	g.pages.SignIn(w, r, http.StatusOK, "", next)
}

// SignIn serves POST of SignInPath, with a form of name, password and next. Each correct password begins a new session. A wrong password
// and an unknown name get the same answer, after the same work.
func (g *Gate) SignIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil || len(g.users) == 0 {
		g.pages.Reject(w, r, http.StatusBadRequest, "That is not a sign-in form.")
		return
	}
	name, next := r.PostForm.Get("name"), localPath(r.PostForm.Get("next"))
	client := g.client(r)
	taken, wait := g.limits.take(client, name)
	if wait > 0 {
		seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
		w.Header().Set("Retry-After", seconds)
		g.pages.SignIn(w, r, http.StatusTooManyRequests, "Too many attempts: wait "+seconds+" s.", next)
		return
	}
	user, correct, err := g.passwords.check(r.Context(), name, r.PostForm.Get("password"))
	if err != nil {
		taken.cancel()
		w.Header().Set("Retry-After", "5")
		g.pages.SignIn(w, r, http.StatusServiceUnavailable, "Too many sign-ins at once: try again in a few seconds.", next)
		return
	}
	if !correct {
		// An unknown name may be a password in the wrong field, so it is not logged.
		g.log.Warn("sign-in refused", "user", g.knownName(name), "address", client.String())
		g.pages.SignIn(w, r, http.StatusUnauthorized, "The name or the password is wrong.", next)
		return
	}
	taken.succeeded()
	if old := g.token(r); old != "" {
		_ = g.sessions.end(r.Context(), old) // after an error it expires
	}
	g.setCookie(w, r, g.sessions.begin(r.Context(), user), int(sessionLife/time.Second))
	g.log.Info("signed in", "user", user.Name, "role", user.Role, "address", client.String())
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // localPath returns only paths of this server
}

// client returns the address whose limit an attempt counts against.
func (g *Gate) client(r *http.Request) netip.Addr {
	client, known := g.proxies.Client(r)
	if !known {
		g.warnOnce.Do(func() {
			g.log.Warn("a trusted proxy sends no valid X-Forwarded-For, so all its visitors share the sign-in limit of one address",
				"proxy", client.String())
		})
	}
	return client
}

// SignOut serves POST of SignOutPath.
func (g *Gate) SignOut(w http.ResponseWriter, r *http.Request) {
	err := g.sessions.end(r.Context(), g.token(r))
	g.setCookie(w, r, "", -1)
	if err != nil {
		g.log.Warn("a session could not be deleted from redis", "user", Of(r).Name, "error", err)
		g.pages.Reject(w, r, http.StatusServiceUnavailable,
			"You are signed out of this process. Redis does not answer; until it does, other dashboard processes may accept the session.")
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

// token returns the token of the session, or "". Over TLS, only a cookie that was set over TLS counts.
func (g *Gate) token(r *http.Request) string {
	cookie, err := r.Cookie(g.cookieFor(r))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// cookieFor returns the name of the request's session cookie.
func (g *Gate) cookieFor(r *http.Request) string {
	if g.proxies.secure(r) {
		return securePrefix + g.cookie
	}
	return g.cookie
}

func (g *Gate) setCookie(w http.ResponseWriter, r *http.Request, value string, seconds int) {
	// Lax, not Strict: with Strict, following a link from a chat would lead to the sign-in. Changes need the same origin anyway.
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // without TLS there is only loopback, or what the operator chose
		Name: g.cookieFor(r), Value: value, Path: "/", MaxAge: seconds,
		Secure: g.proxies.secure(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// nextQuery returns the query of a sign-in that continues with the URL.
func nextQuery(u *url.URL) string {
	return url.Values{"next": {localPath(u.RequestURI())}}.Encode()
}

// localPath returns next if it is a path on this server, with its query, else "/". A link to the sign-in must not lead to another site.
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
