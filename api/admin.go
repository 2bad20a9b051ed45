package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// Admin is what operators may do over HTTP, under /v1/admin.
type Admin struct {
	// Token is what they send as Authorization: Bearer. Without it there are no such paths.
	Token string
	// Operator carries out what they ask for.
	Operator *operate.Service
}

// Codes of the admin routes only.
const (
	codeUnauthorized counter.Code = "unauthorized"
	codeInvalidQuery counter.Code = "invalid_query"
)

const (
	// maxAdmins bounds the admin requests at a time: each may read the dead hash of every shard.
	maxAdmins = 4
	// adminTimeout bounds one of them, within the time that serve gives an answer.
	adminTimeout = 30 * time.Second
)

// admin is the admin routes.
type admin struct {
	*server

	token    [sha256.Size]byte
	operator *operate.Service
	slots    chan struct{} // one element for each request that is being carried out
	timeout  time.Duration // for each
}

// adminRoutes adds the routes to e if there is a token.
func (s *server) adminRoutes(e *echo.Echo) {
	if s.admin.Token == "" {
		return
	}
	a := &admin{
		server: s, token: sha256.Sum256([]byte(s.admin.Token)), operator: s.admin.Operator, slots: make(chan struct{}, maxAdmins),
		timeout: s.adminTimeout,
	}
	read := []string{http.MethodGet, http.MethodHead}
	e.Match(read, "/v1/admin/dead", a.guard(a.listDead))
	e.Match(read, "/v1/admin/dead/:key", a.guard(a.showDead))
	e.DELETE("/v1/admin/dead/:key", a.guard(a.discardDead))
	e.POST("/v1/admin/dead/redrive", a.guard(a.redriveDead))
}

// guard lets requests with the token pass, some at a time, each with a bound.
func (a *admin) guard(next func(ctx context.Context, c echo.Context) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !a.authorized(c.Request().Header) {
			c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="afterwrite"`)
			return &counter.Error{Code: codeUnauthorized, Detail: "it takes Authorization: Bearer and the admin token"}
		}
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		default:
			return noRoom("too many admin requests are under way; nothing was done")
		}
		ctx, cancel := context.WithTimeout(c.Request().Context(), a.timeout)
		defer cancel()
		return next(ctx, c)
	}
}

// authorized compares hashes, so that the time it takes tells neither the token nor its length.
func (a *admin) authorized(h http.Header) bool {
	given := h[echo.HeaderAuthorization]
	if len(given) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

// answerJSON answers 200 with v, which can be encoded.
func answerJSON(c echo.Context, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // it is a mistake of this package, and logged as one
	}
	write(c, http.StatusOK, jsonType, text)
	return nil
}
