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

// Admin configures the paths under /v1/admin, for operators.
type Admin struct {
	// Token is the secret that requests send as Authorization: Bearer. If it is empty, the paths answer 404.
	Token string
	// Operator carries out the requests.
	Operator *operate.Service
}

// Codes that only this package uses.
const (
	codeUnauthorized counter.Code = "unauthorized"
	codeInvalidQuery counter.Code = "invalid_query"
)

const (
	// maxAdmins bounds the concurrent admin requests: each may read the dead hash of every shard.
	maxAdmins = 4
	// adminTimeout bounds each admin request. It is less than the server's write timeout.
	adminTimeout = 30 * time.Second
)

// admin serves the admin routes.
type admin struct {
	*server

	token    [sha256.Size]byte // the token's hash
	operator *operate.Service
	slots    chan struct{} // one element for each request in progress
	timeout  time.Duration // of each request
}

// adminRoutes adds the admin routes to e if there is a token.
func (s *server) adminRoutes(e *echo.Echo) {
	if s.Admin.Token == "" {
		return
	}
	a := &admin{
		server: s, token: sha256.Sum256([]byte(s.Admin.Token)), operator: s.Admin.Operator, slots: make(chan struct{}, maxAdmins),
		timeout: s.adminTimeout,
	}
	read := []string{http.MethodGet, http.MethodHead}
	e.Match(read, "/v1/admin/dead", a.guard(a.listDead))
	e.Match(read, "/v1/admin/dead/:key", a.guard(a.showDead))
	e.DELETE("/v1/admin/dead/:key", a.guard(a.discardDead))
	e.POST("/v1/admin/dead/redrive", a.guard(a.redriveDead))
}

// guard admits requests with the token, maxAdmins at a time, each with a timeout.
func (a *admin) guard(next func(ctx context.Context, c echo.Context) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !a.authorized(c.Request().Header) {
			c.Response().Header().Set(echo.HeaderWWWAuthenticate, `Bearer realm="afterwrite"`)
			return &counter.Error{Code: codeUnauthorized, Detail: "send Authorization: Bearer with the admin token, once"}
		}
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		default:
			return overloaded("too many admin requests are in progress; nothing was done")
		}
		ctx, cancel := context.WithTimeout(c.Request().Context(), a.timeout)
		defer cancel()
		return next(ctx, c)
	}
}

// authorized reports whether the request has the token. It compares hashes, so that its duration reveals neither the token nor
// the token's length.
func (a *admin) authorized(h http.Header) bool {
	given := h[echo.HeaderAuthorization]
	if len(given) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

// answerJSON answers 200 with v.
func answerJSON(c echo.Context, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // a bug, which is logged as internal
	}
	write(c, http.StatusOK, jsonType, text)
	return nil
}
