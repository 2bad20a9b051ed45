package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Headers of answers to clients with a rate: draft-ietf-httpapi-ratelimit-headers-06, the last draft with one header for each number.
const (
	headerRateLimit     = "Ratelimit-Limit"
	headerRateRemaining = "Ratelimit-Remaining"
	headerRateReset     = "Ratelimit-Reset"
)

// caller is the context of a request on a route that needs an API key.
type caller struct {
	echo.Context

	key   *auth.Key
	spent bool // spend was called
}

// keyOf returns the API key of a request. Nil: the caller needs none, and may use every counter. All methods of a nil key work.
func keyOf(c echo.Context) *auth.Key {
	if known, ok := c.(*caller); ok {
		return known.key
	}
	return nil
}

// guard admits requests whose API key has the scope of the route, and takes one operation from the key's rate. If the cost depends on
// the body (ownCost), the handler takes it with spend, and guard only checks, before the body is read, that the rate is not used up. A
// request that fails before its handler knows the cost, such as one with a bad body, is one operation, so that nobody sends them without
// a limit.
func (s *server) guard(r route) echo.HandlerFunc {
	if r.scope == auth.Public {
		return r.handler
	}
	return func(c echo.Context) error {
		if r.scope == auth.Admin && !s.Keys.Has(auth.Admin) {
			return echo.ErrNotFound
		}
		key, err := s.Keys.Admit(c.Request().Header, r.scope)
		if err != nil {
			if counter.CodeOf(err) == auth.CodeUnauthorized {
				c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="afterwrite"`)
			}
			return err
		}
		if key == nil { // without keys, requests cost as much as ever
			return r.handler(c)
		}
		known := &caller{Context: c, key: key}
		var quota auth.Quota
		if r.ownCost {
			quota, err = key.Ready()
		} else {
			quota, err = key.Take(1)
		}
		announce(c, quota)
		if err != nil {
			return err
		}
		err = r.handler(known)
		if r.ownCost && !known.spent {
			_ = spend(known, 1) // the request has failed already
		}
		return err
	}
}

// spend takes n operations from the rate of the request's key, and sets the headers that say what is left. If n do not fit, it returns
// an error, and the handler must apply nothing.
func spend(c echo.Context, n int) error {
	if known, ok := c.(*caller); ok {
		known.spent = true
	}
	quota, err := keyOf(c).Take(n)
	announce(c, quota)
	return err
}

// announce sets the headers for a quota, unless there is no limit.
func announce(c echo.Context, quota auth.Quota) {
	if quota.Limit == 0 {
		return
	}
	values := [...]string{strconv.Itoa(quota.Limit), strconv.Itoa(quota.Remaining), strconv.Itoa(ceilSeconds(quota.Reset))}
	h := c.Response().Header()
	h[headerRateLimit], h[headerRateRemaining], h[headerRateReset] = values[0:1:1], values[1:2:2], values[2:3:3]
}

// ceilSeconds rounds d up to whole seconds.
func ceilSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// permittedKey returns the key in the path, if the request's API key may use that counter.
func permittedKey(c echo.Context) (counter.Key, error) {
	key, err := pathKey(c)
	if err != nil {
		return "", err
	}
	return key, keyOf(c).Check(key)
}

// permit takes the operations of a plan from the rate of the request's API key. Each operation on a counter that the key may not use
// gets an error; the others are carried out.
func permit(c echo.Context, plan []planned) error {
	if err := spend(c, len(plan)); err != nil {
		return err
	}
	checkPrefix(keyOf(c), plan)
	return nil
}

// permitGroup takes the operations of a group of a stream from the rate of its API key, and waits until they fit. Each operation on a
// counter that the key may not use gets an error. The error means that nothing of the group may be carried out: the process stops, or
// the key has been removed or lost its scope since the stream began.
func (s *server) permitGroup(key *auth.Key, plan []planned) error {
	if key.Wait(s.Shutdown, len(plan)) != nil {
		return errStopping
	}
	now, err := s.Keys.Again(key, auth.Write)
	if err != nil {
		return err //nolint:wrapcheck // it is for the client
	}
	checkPrefix(now, plan)
	return nil
}

// checkPrefix gives an error to each operation on a counter that the API key may not use.
func checkPrefix(key *auth.Key, plan []planned) {
	if key.CheckAll() == nil {
		return
	}
	for i := range plan {
		if plan[i].err == nil {
			plan[i].err = key.Check(plan[i].Key)
		}
	}
}

// permittedFlush returns an error unless the request's API key may flush keys, or all counters if keys is nil.
func permittedFlush(c echo.Context, keys []counter.Key) error {
	if keys == nil {
		return keyOf(c).CheckAll()
	}
	for _, key := range keys {
		if err := keyOf(c).Check(key); err != nil {
			return err
		}
	}
	return nil
}

// route is a request that the server answers.
type route struct {
	method  string // GET includes HEAD
	path    string
	scope   auth.Scope // which the API key needs; never 0
	handler echo.HandlerFunc
	ownCost bool // the handler takes the operations from the rate, because their number is in the body
}

// routes returns every route. It is the only list of them: what is not here does not exist, and a test requires a scope of each.
func (s *server) routes() []route {
	all := []route{
		{method: http.MethodGet, path: "/v1/counters/:key", scope: auth.Read, handler: s.get},
		{method: http.MethodPut, path: "/v1/counters/:key", scope: auth.Write, handler: s.set},
		{method: http.MethodDelete, path: "/v1/counters/:key", scope: auth.Write, handler: s.remove},
		{method: http.MethodPost, path: "/v1/counters/:key/increment", scope: auth.Write, handler: s.increment},
		{method: http.MethodPost, path: "/v1/batch", scope: auth.Write, handler: s.batch, ownCost: true},
		{method: http.MethodPost, path: "/v1/stream", scope: auth.Write, handler: s.stream, ownCost: true},
		{method: http.MethodPost, path: "/v1/read", scope: auth.Read, handler: s.readMany, ownCost: true},
		{method: http.MethodGet, path: "/v1/openapi.yaml", scope: auth.Public, handler: openAPI},
		{method: http.MethodGet, path: "/docs", scope: auth.Public, handler: docsPage},
		{method: http.MethodGet, path: "/docs/:file", scope: auth.Public, handler: docsFile},
		{method: http.MethodGet, path: "/problems/:code", scope: auth.Public, handler: explainProblem},
	}
	if s.Lister != nil {
		all = append(all,
			route{method: http.MethodGet, path: "/v1/counters", scope: auth.Read, handler: s.list},
			route{method: http.MethodGet, path: "/v1/top", scope: auth.Read, handler: s.top})
	}
	if s.Historian != nil {
		all = append(all, route{method: http.MethodGet, path: "/v1/counters/:key/history", scope: auth.Read, handler: s.history})
	}
	if s.Flusher != nil {
		all = append(all, route{method: http.MethodPost, path: "/v1/flush", scope: auth.Write, handler: s.flush})
	}
	for path, handler := range s.Health {
		all = append(all, route{method: http.MethodGet, path: path, scope: auth.Public, handler: echo.WrapHandler(handler)})
	}
	return append(all, s.adminRoutes()...)
}

// adminRoutes returns the routes for operators. There are none if the settings have no keys.
func (s *server) adminRoutes() []route {
	if s.Operator == nil || !s.Keys.Any() {
		return nil
	}
	a := &admin{server: s, operator: s.Operator, slots: make(chan struct{}, maxAdmins), timeout: s.adminTimeout}
	return []route{
		{method: http.MethodGet, path: "/v1/admin/dead", scope: auth.Admin, handler: a.bound(a.listDead)},
		{method: http.MethodGet, path: "/v1/admin/dead/:key", scope: auth.Admin, handler: a.bound(a.showDead)},
		{method: http.MethodDelete, path: "/v1/admin/dead/:key", scope: auth.Admin, handler: a.bound(a.discardDead)},
		{method: http.MethodPost, path: "/v1/admin/dead/redrive", scope: auth.Admin, handler: a.bound(a.redriveDead)},
	}
}
