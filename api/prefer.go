package api

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// maxWait bounds the wait for Postgres. It is half of the time that proxies usually allow for a request.
const maxWait = 30 * time.Second

// preferences holds the known preferences of the header Prefer (RFC 7240).
type preferences struct {
	minimal   bool          // return=minimal: the client wants no value
	wait      time.Duration // wait=5: wait up to 5 s for Postgres to have the write; 0: no wait
	waitGiven bool          // the request has a valid wait, which may be 0
	// durability=replica: where a write must be stored before it is answered. Without it, AFTERWRITE_DURABILITY says.
	durability      string
	durabilityGiven bool // the request has a durability, which may be invalid or empty
}

// readPreferences reads the preferences of a request. Case does not matter, and a value may be quoted. If several preferences
// have the same name, the first one counts, even across several headers. Parameters, unknown preferences and invalid values are
// ignored, as RFC 7240 requires.
func readPreferences(h http.Header) preferences {
	var p preferences
	var seenReturn, seenWait bool
	for _, line := range h["Prefer"] {
		for line != "" {
			var preference string
			preference, line = cut(line, ',')
			preference, _ = cut(preference, ';')
			name, value := cut(preference, '=')
			value = unquoted(strings.TrimSpace(value))
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "return") && !seenReturn:
				seenReturn = true
				p.minimal = strings.EqualFold(value, "minimal")
			case strings.EqualFold(name, "wait") && !seenWait:
				seenWait = true
				p.wait, p.waitGiven = seconds(value)
			case strings.EqualFold(name, "durability") && !p.durabilityGiven:
				p.durability, p.durabilityGiven = strings.ToLower(value), true
			}
		}
	}
	return p
}

// seconds parses the value of wait, a number of whole seconds, and limits it to maxWait. ok is false if value is not such a number.
func seconds(value string) (wait time.Duration, ok bool) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // for a number that is too large, n is the largest uint64
		return 0, false
	}
	return time.Duration(min(n, uint64(maxWait/time.Second))) * time.Second, true
}

// levels are the values of durability. timeout applies if the request has no wait, or a wait of 0.
var levels = map[string]struct {
	level   writepath.Durability
	timeout time.Duration
}{
	"memory":   {writepath.InRedis, 0},
	"replica":  {writepath.OnReplicas, 2 * time.Second},
	"disk":     {writepath.OnDisk, 2 * time.Second},
	"database": {writepath.InPostgres, defaultWait},
}

// options returns the options of a write. It rejects an unknown durability, although RFC 7240 ignores unknown values: a client
// that requests a durability relies on it.
func (p preferences) options() (writepath.Options, error) {
	o := writepath.Options{Minimal: p.minimal, Wait: p.wait}
	if !p.durabilityGiven {
		return o, nil
	}
	l, known := levels[p.durability]
	if !known {
		return o, &counter.Error{
			Code:   counter.CodeUnsupportedDurability,
			Detail: "durability must be memory, replica, disk or database, not " + excerpt(p.durability),
		}
	}
	o.Durability = l.level
	if o.Wait == 0 {
		o.Wait = l.timeout
	}
	return o, nil
}

// waitsForPostgres reports whether the request has a wait that is not the time limit of its durability. If the wait ends early, the
// answer is 202.
func (p preferences) waitsForPostgres() bool {
	return p.wait > 0 && (!p.durabilityGiven || p.durability == "memory")
}

// applied sets the header that lists the preferences that were applied. return=minimal is listed only if minimal is true.
func (p preferences) applied(c echo.Context, minimal bool) {
	var honoured []string
	if minimal {
		honoured = append(honoured, "return=minimal")
	}
	if p.wait > 0 {
		honoured = append(honoured, "wait="+strconv.Itoa(int(p.wait/time.Second)))
	}
	if p.durability != "" {
		honoured = append(honoured, "durability="+p.durability)
	}
	if len(honoured) > 0 {
		c.Response().Header().Set(headerPreferenceApplied, strings.Join(honoured, ", "))
	}
}

// readWait holds the wait parameters of a read.
type readWait struct {
	wait    time.Duration // 0: the read does not wait
	version int64         // 0: wait for the version that the read finds
}

// defaultWait is how long a read, a flush or a write with durability=database waits if the request does not say.
const defaultWait = 5 * time.Second

// parseReadWait parses wait=synced, version and timeout of a query. Without wait it ignores version and timeout.
func parseReadWait(c echo.Context) (readWait, error) {
	if c.Request().URL.RawQuery == "" {
		return readWait{}, nil
	}
	query := c.QueryParams()
	if !query.Has("wait") {
		return readWait{}, nil
	}
	a := readWait{wait: defaultWait}
	for _, name := range [...]string{"wait", "version", "timeout"} {
		if len(query[name]) > 1 {
			return a, invalidQuery("%s is given more than once", name)
		}
	}
	if query.Get("wait") != "synced" {
		return a, invalidQuery("wait must be synced")
	}
	return a, a.parse(query)
}

// parse parses version and timeout.
func (a *readWait) parse(query url.Values) (err error) {
	if query.Has("version") {
		if a.version, err = strconv.ParseInt(query.Get("version"), 10, 64); err != nil || a.version < 1 {
			return invalidQuery("version must be an integer of 1 or more")
		}
	}
	if query.Has("timeout") {
		a.wait, err = time.ParseDuration(query.Get("timeout"))
		if err != nil || a.wait <= 0 || a.wait > maxWait {
			return invalidQuery("timeout must be a duration of up to %s, such as 5s or 500ms", maxWait)
		}
	}
	return nil
}

// cut is strings.Cut at the first separator outside a quoted string.
func cut(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++ // the next byte is part of the string, even if it is a quote
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// unquoted strips the quotes of a quoted string. It keeps escapes, since no known value has any.
func unquoted(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
