package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// problemPath precedes the code in a problem's type. By RFC 9457 a type may be a relative reference, and should lead to an
// explanation: GET /problems/overflow does.
const problemPath = "/problems/"

// problem is how the API answers a counter.Code.
type problem struct {
	status  int
	title   string
	promise string // for /problems/{code}: what became of the write, and what to do
}

// problems maps every code to its status. A code that is not in it is internal.
var problems = map[counter.Code]problem{
	counter.CodeInvalidKey: {
		http.StatusBadRequest, "Invalid key",
		"Not applied. A key has 1 to 255 bytes of UTF-8 without control characters, percent-encoded in a path.",
	},
	counter.CodeInvalidBody: {
		http.StatusBadRequest, "Invalid body",
		"Not applied. The detail says what the body should hold; amounts are integers of 64 bits.",
	},
	counter.CodeUnknownField: {
		http.StatusBadRequest, "Unknown field",
		"Not applied. The body has a field that this request does not take; the detail names it.",
	},
	counter.CodeTooManyOperations: {
		http.StatusBadRequest, "Too many operations",
		"Not applied. Send them in several batches of up to 10,000.",
	},
	counter.CodeNotFound: {
		http.StatusNotFound, "Not found",
		"There is no such counter, or nothing at the path.",
	},
	counter.CodeMethodNotAllowed: {
		http.StatusMethodNotAllowed, "Method not allowed",
		"Not applied. The header Allow says what the path takes.",
	},
	counter.CodeOverflow: {
		http.StatusConflict, "Overflow",
		"Not applied. The value would leave the range of a signed 64-bit integer.",
	},
	counter.CodeInvalidIdempotencyKey: {
		http.StatusBadRequest, "Invalid idempotency key",
		"Not applied. An Idempotency-Key, or the id of an operation in a batch, has 1 to 128 bytes of printable ASCII.",
	},
	counter.CodeIdempotencyKeyReused: {
		http.StatusUnprocessableEntity, "Idempotency key reused",
		"Not applied. Another operation on this counter had this key; what it did stands. A new operation takes a new key.",
	},
	counter.CodeBodyTooLarge: {
		http.StatusRequestEntityTooLarge, "Body too large",
		"Not applied. A body takes up to 1 MiB, a batch up to 8 MiB.",
	},
	counter.CodeUnsupportedMediaType: {
		http.StatusUnsupportedMediaType, "Unsupported media type",
		"Not applied. A body is application/json in UTF-8 without a Content-Encoding.",
	},
	counter.CodeInternal: {
		http.StatusInternalServerError, "Internal error",
		"A bug in the server, which has logged it with the request's X-Request-Id. The write may have been applied.",
	},
	counter.CodeBackpressure: {
		http.StatusServiceUnavailable, "Too many unsynced counters",
		"Not applied. Postgres is behind; try again after Retry-After.",
	},
	counter.CodeOverloaded: {
		http.StatusServiceUnavailable, "Overloaded",
		"Not applied. This process has too much in hand; try again after Retry-After.",
	},
	counter.CodeCacheFull: {
		http.StatusServiceUnavailable, "Cache full",
		"Not applied. Redis is at its memory limit; try again after Retry-After.",
	},
	counter.CodeCacheUnavailable: {
		http.StatusServiceUnavailable, "Cache unavailable",
		"Not applied. Redis could not be reached; try again after Retry-After.",
	},
	counter.CodeDatabaseUnavailable: {
		http.StatusServiceUnavailable, "Database unavailable",
		"The counter is not in Redis and Postgres did not answer; try again after Retry-After.",
	},
	codeUnauthorized: {
		http.StatusUnauthorized, "Unauthorized",
		"Not applied. The paths under /v1/admin take Authorization: Bearer and the process's AFTERWRITE_ADMIN_TOKEN.",
	},
	codeInvalidQuery: {
		http.StatusBadRequest, "Invalid query",
		"Nothing was done. The detail says which part of the query is wrong, and what it takes.",
	},
	counter.CodeConflict: {
		http.StatusConflict, "Conflict",
		"The counter is not any more what it was, or Postgres does not accept it; the detail says what was done. Read it again.",
	},
	counter.CodeNotDurable: {
		http.StatusServiceUnavailable, "Not durable yet",
		"APPLIED in Redis, but it is not known to be where Prefer: durability wants it. With the same Idempotency-Key it may be " +
			"repeated to wait again; without one it would count twice.",
	},
	counter.CodeUnsupportedDurability: {
		http.StatusBadRequest, "Unsupported durability",
		"Not applied. Prefer: durability takes replica, disk or database, and disk needs a Redis that can tell.",
	},
	counter.CodeOutcomeUnknown: {
		http.StatusGatewayTimeout, "Outcome unknown",
		"The write may or may not have been applied. Repeat it if it had an Idempotency-Key; without one an increment may count twice.",
	},
}

// asProblem returns err as an Error whose code is in the table.
func asProblem(err error) *counter.Error {
	if e, ok := errors.AsType[*counter.Error](err); ok {
		if _, known := problems[e.Code]; known {
			return e
		}
	}
	return &counter.Error{Code: counter.CodeInternal, Err: err}
}

// fail is Echo's HTTPErrorHandler. It answers with a problem, counts it, and logs what the client is not told.
func (s *server) fail(err error, c echo.Context) {
	switch {
	case errors.Is(err, echo.ErrNotFound):
		err = notFound(c.Request().URL.RawPath)
	case errors.Is(err, echo.ErrMethodNotAllowed):
		err = methodNotAllowed(c.Response().Header())
	}
	e := asProblem(err)
	s.metrics.reject(e.Code)
	s.failures.log(c, e, 1)
	writeProblem(c, e)
}

// writeProblem answers with e, unless the answer has begun.
func writeProblem(c echo.Context, e *counter.Error) {
	if c.Response().Committed {
		return
	}
	b := getBuffer()
	defer putBuffer(b)
	b.bytes = appendProblem(b.bytes, e)
	status := problems[e.Code].status
	if status == http.StatusServiceUnavailable {
		c.Response().Header().Set(echo.HeaderRetryAfter, retryAfter(e.RetryAfter))
	}
	write(c, status, problemType, b.bytes)
}

// retryAfter rounds up to the whole seconds that the header takes, to at least one.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}

// explainProblem answers what a problem's type leads to.
func explainProblem(c echo.Context) error {
	code := counter.Code(c.Param("code"))
	p, ok := problems[code]
	if !ok {
		return &counter.Error{Code: counter.CodeNotFound, Detail: "there is no such problem"}
	}
	return c.String(http.StatusOK, p.title+" ("+string(code)+", "+strconv.Itoa(p.status)+")\n\n"+p.promise+"\n")
}
