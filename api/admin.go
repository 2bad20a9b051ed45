package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// codeInvalidQuery is a code that only this package uses.
const codeInvalidQuery counter.Code = "invalid_query"

const (
	// maxAdmins bounds the concurrent admin requests: each may read the dead hash of every shard.
	maxAdmins = 4
	// adminTimeout bounds each admin request. It is less than the server's write timeout.
	adminTimeout = 30 * time.Second
)

// admin serves the admin routes.
type admin struct {
	*server

	operator *operate.Service
	slots    chan struct{} // one element for each request in progress
	timeout  time.Duration // of each request
}

// bound carries out maxAdmins requests at a time, each with a timeout.
func (a *admin) bound(next func(ctx context.Context, c echo.Context) error) echo.HandlerFunc {
	return func(c echo.Context) error {
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

// answerJSON answers 200 with v.
func answerJSON(c echo.Context, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // a bug, which is logged as internal
	}
	write(c, http.StatusOK, jsonType, text)
	return nil
}
