package api

import (
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// While Redis is away every request fails for the same reason: some lines say as much as 50,000 a second, which would fill
// a disk. Errors of code internal are each news and are not limited.
const (
	failuresPerSecond = 10
	failuresBurst     = 100
)

// failureLog logs what counter.Error keeps from clients, once for each request, and bounded.
type failureLog struct {
	logger *slog.Logger
	limit  *rate.Limiter
	unsaid atomic.Int64 // failures that were left out since the last line
}

func newFailureLog(logger *slog.Logger) *failureLog {
	return &failureLog{logger: logger, limit: rate.NewLimiter(failuresPerSecond, failuresBurst)}
}

// log logs e if the operator can learn something from it: a refusal such as backpressure has no Err, and is a metric. A
// client that has hung up is not a failure either. operations is how many had this outcome.
func (l *failureLog) log(c echo.Context, e *counter.Error, operations int) {
	internal := e.Code == counter.CodeInternal
	switch {
	case problems[e.Code].status < http.StatusInternalServerError, e.Err == nil:
		return
	case internal:
		l.line(c, slog.LevelError, e, operations)
	case c.Request().Context().Err() != nil:
		return
	case l.limit.Allow():
		l.line(c, slog.LevelWarn, e, operations)
	default:
		l.unsaid.Add(1)
	}
}

func (l *failureLog) line(c echo.Context, level slog.Level, e *counter.Error, operations int) {
	l.logger.Log(logContext(c), level, "request failed",
		"request_id", answerID(c), "method", c.Request().Method, "route", c.Path(),
		"code", string(e.Code), "operations", operations, "error", e.Err, "unsaid", l.unsaid.Swap(0))
}
