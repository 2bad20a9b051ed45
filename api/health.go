package api

import (
	"context"
	_ "embed"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// readyTimeout is under what load balancers usually give a health check.
const readyTimeout = 2 * time.Second

// What /readyz says of a dependency; why is for the log only.
const (
	stateOK          = "ok"
	stateUnreachable = "unreachable"
	stateUnavailable = "unavailable"
	stateStopping    = "stopping"
)

//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the description of this API.
func openAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", openAPIDocument)
}

// healthz says that the process runs, whatever has become of Redis and Postgres: to restart it would not bring them back.
func (s *server) healthz(c echo.Context) error {
	return answerHealth(c, http.StatusOK, map[string]any{"status": stateOK, "version": s.version})
}

// readyz says whether requests can be answered. Without Postgres they can, so it is reported only.
func (s *server) readyz(c echo.Context) error {
	// A client that hangs up is not a dependency that fails.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), readyTimeout)
	defer cancel()
	redis, postgres := s.counters.Ready(ctx)
	s.failures.unready(redis, postgres)

	status, state := http.StatusOK, stateOK
	if redis != nil {
		status, state = http.StatusServiceUnavailable, stateUnavailable
		c.Response().Header().Set(echo.HeaderRetryAfter, retryAfter(0))
	}
	if s.farewell.underWay() {
		status, state = http.StatusServiceUnavailable, stateStopping
	}
	return answerHealth(c, status, map[string]any{
		"status": state,
		"checks": map[string]string{"redis": reachable(redis), "postgres": reachable(postgres)},
	})
}

func answerHealth(c echo.Context, status int, body map[string]any) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(status, body)
}

func reachable(err error) string {
	if err != nil {
		return stateUnreachable
	}
	return stateOK
}
