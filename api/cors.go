package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// corsMaxAge is how long a browser may keep the answer to a preflight request. Chrome keeps none for longer than two hours.
const corsMaxAge = 2 * time.Hour

// Headers that pages of other origins may send and read, besides those that browsers always permit.
var (
	corsAllowed = []string{
		echo.HeaderAuthorization, echo.HeaderContentType, echo.HeaderContentEncoding, headerIdempotencyKey, headerNote,
		"If-Match", "If-None-Match",
		"Prefer", echo.HeaderXRequestID,
	}
	corsExposed = []string{
		echo.HeaderAllow, "ETag", headerReplayed, headerPreferenceApplied, "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
		echo.HeaderRetryAfter, echo.HeaderWWWAuthenticate, echo.HeaderXRequestID,
	}
)

// cors lets pages of these origins use the API in a browser (https://fetch.spec.whatwg.org/#http-cors-protocol). It answers preflight
// requests itself, before a key is needed, since browsers send none with them. Cookies and other credentials of the browser are not
// permitted: a page sends its API key itself.
func cors(origins []string) echo.MiddlewareFunc {
	return middleware.CORSWithConfig(middleware.CORSConfig{
		AllowOrigins: origins, AllowHeaders: corsAllowed, ExposeHeaders: corsExposed, MaxAge: int(corsMaxAge / time.Second),
		// Echo would answer an OPTIONS request without an Origin differently from a server without CORS.
		Skipper: func(c echo.Context) bool {
			return c.Request().Method == http.MethodOptions && c.Request().Header.Get(echo.HeaderAccessControlRequestMethod) == ""
		},
	})
}
