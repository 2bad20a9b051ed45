package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// problemPath precedes the code in a problem's type. RFC 9457 allows a relative reference and recommends that it leads to an
// explanation, as GET /problems/overflow does.
const problemPath = "/problems/"

// problem describes how the API answers a counter.Code.
type problem struct {
	status  int
	title   string
	promise string // for /problems/{code}: whether the write was applied, and what to do
}

// problems maps every code to its problem. An unknown code is answered as internal.
var problems = map[counter.Code]problem{
	counter.CodeInvalidKey: {
		http.StatusBadRequest, "Invalid key",
		"Not applied. A key has 1 to 255 bytes of UTF-8 without control characters, percent-encoded in a path.",
	},
	counter.CodeInvalidBody: {
		http.StatusBadRequest, "Invalid body",
		"Not applied. The detail says what is wrong. Amounts are signed 64-bit integers.",
	},
	counter.CodeUnknownField: {
		http.StatusBadRequest, "Unknown field",
		"Not applied. The body has a field that this request does not have; the detail names it.",
	},
	counter.CodeTooManyOperations: {
		http.StatusBadRequest, "Too many operations",
		"Not applied. Send them in several batches of up to 10,000.",
	},
	counter.CodeNotFound: {
		http.StatusNotFound, "Not found",
		"The counter does not exist, or there is nothing at the path.",
	},
	counter.CodeMethodNotAllowed: {
		http.StatusMethodNotAllowed, "Method not allowed",
		"Not applied. The header Allow lists the methods of the path.",
	},
	counter.CodeOverflow: {
		http.StatusConflict, "Overflow",
		"Not applied. The value would leave the range of a signed 64-bit integer.",
	},
	counter.CodeOutOfBounds: {
		http.StatusConflict, "Out of bounds",
		"Not applied. The value would be less than min or greater than max. The problem has the present value, and the " +
			"version unless the counter does not exist.",
	},
	counter.CodeVersionMismatch: {
		http.StatusPreconditionFailed, "Version mismatch",
		"Not applied. The counter does not have the version in If-Match. The problem has the present value and version, unless the " +
			"counter does not exist. Read the counter again and decide.",
	},
	codeInvalidPrecondition: {
		http.StatusBadRequest, "Invalid precondition",
		"Not applied. If-Match must be one version in quotes, such as \"7\", or *. Only writes to one counter take it, and only GET " +
			"takes If-None-Match.",
	},
	counter.CodeInvalidIdempotencyKey: {
		http.StatusBadRequest, "Invalid idempotency key",
		"Not applied. An Idempotency-Key, or the id of an operation in a batch, has 1 to 128 bytes of printable ASCII.",
	},
	counter.CodeIdempotencyKeyReused: {
		http.StatusUnprocessableEntity, "Idempotency key reused",
		"Not applied. A different operation on this counter had this key and was applied. Use a new key for each operation.",
	},
	counter.CodeBodyTooLarge: {
		http.StatusRequestEntityTooLarge, "Body too large",
		"Not applied. The body of a batch, a read or a flush may have 8 MiB, a line of a stream 64 KiB, any other body 1 MiB.",
	},
	counter.CodeUnsupportedMediaType: {
		http.StatusUnsupportedMediaType, "Unsupported media type",
		"Not applied. A body must be application/json in UTF-8, that of a stream application/x-ndjson. The bodies of batches, streams, " +
			"reads and flushes may have Content-Encoding gzip or zstd.",
	},
	counter.CodeInternal: {
		http.StatusInternalServerError, "Internal error",
		"A bug in the server. The log has the cause, with the X-Request-Id. The write may have been applied.",
	},
	counter.CodeBackpressure: {
		http.StatusServiceUnavailable, "Too many unsynced counters",
		"Not applied. Too many counters wait to be written to Postgres. Try again after Retry-After.",
	},
	counter.CodeOverloaded: {
		http.StatusServiceUnavailable, "Overloaded",
		"Not applied. A queue of this process is full, or the body arrived too slowly. Try again after Retry-After.",
	},
	counter.CodeCacheFull: {
		http.StatusServiceUnavailable, "Cache full",
		"Not applied. Redis is at its memory limit. Try again after Retry-After.",
	},
	counter.CodeCacheUnavailable: {
		http.StatusServiceUnavailable, "Cache unavailable",
		"Not applied. Redis could not be reached, or did not accept writes. Try again after Retry-After.",
	},
	counter.CodeDatabaseUnavailable: {
		http.StatusServiceUnavailable, "Database unavailable",
		"The request needs Postgres, which did not answer. Try again after Retry-After.",
	},
	auth.CodeUnauthorized: {
		http.StatusUnauthorized, "Unauthorized",
		"Not applied. The request needs one header Authorization: Bearer with an API key. The server does not know the key, or got none.",
	},
	auth.CodeForbidden: {
		http.StatusForbidden, "Forbidden",
		"Not applied. The API key lacks the scope of this request, or may only use counters with another prefix. The detail says which.",
	},
	auth.CodeRateLimited: {
		http.StatusTooManyRequests, "Too many requests",
		"Not applied. The API key has sent more operations than its rate allows. Try again after Retry-After.",
	},
	codeInvalidQuery: {
		http.StatusBadRequest, "Invalid query",
		"Nothing was done. The detail says which parameter of the query is wrong, and what it must be.",
	},
	counter.CodeConflict: {
		http.StatusConflict, "Conflict",
		"The counter was written meanwhile, or Postgres does not accept it. The detail says what was done. Read the counter again.",
	},
	counter.CodeNotDurable: {
		http.StatusServiceUnavailable, "Not durable yet",
		"APPLIED in Redis, but the requested durability was not confirmed. To wait again, repeat the request with the same " +
			"Idempotency-Key. Without one, an increment would count twice.",
	},
	counter.CodeUnsupportedDurability: {
		http.StatusBadRequest, "Unsupported durability",
		"Not applied. Prefer: durability must be memory, replica, disk or database, and this Redis must support the level.",
	},
	counter.CodeOutcomeUnknown: {
		http.StatusGatewayTimeout, "Outcome unknown",
		"The write may or may not have been applied. Repeat it with the same Idempotency-Key. Without one, an increment may count twice.",
	},
}

// asProblem returns err if it is a counter.Error whose code is in problems, and an internal error with err as its cause otherwise.
func asProblem(err error) *counter.Error {
	if e, ok := errors.AsType[*counter.Error](err); ok {
		if _, known := problems[e.Code]; known {
			return e
		}
	}
	return &counter.Error{Code: counter.CodeInternal, Err: err}
}

// fail is Echo's HTTPErrorHandler. It answers with a problem, counts it, and logs its cause.
func (s *server) fail(err error, c echo.Context) {
	switch {
	case errors.Is(err, echo.ErrNotFound):
		err = notFound(c.Request().URL.RawPath)
	case errors.Is(err, echo.ErrMethodNotAllowed):
		err = methodNotAllowed(c.Response().Header())
	}
	e := asProblem(err)
	s.metrics.Reject(e.Code, 1)
	s.failures.log(c, e, 1)
	writeProblem(c, e)
}

// writeProblem answers with e, unless part of an answer was already sent.
func writeProblem(c echo.Context, e *counter.Error) {
	if c.Response().Committed {
		return
	}
	b := getBuffer()
	defer putBuffer(b)
	b.bytes = appendProblem(b.bytes, e)
	status := problems[e.Code].status
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		c.Response().Header().Set(echo.HeaderRetryAfter, retryAfter(e.RetryAfter))
	}
	write(c, status, problemType, b.bytes)
}

// retryAfter returns the header's value: d in whole seconds, rounded up, and at least 1.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}

// explainProblem answers GET of a problem's type with its explanation.
func explainProblem(c echo.Context) error {
	code := counter.Code(c.Param("code"))
	p, ok := problems[code]
	if !ok {
		return &counter.Error{Code: counter.CodeNotFound, Detail: "there is no such problem"}
	}
	return c.String(http.StatusOK, p.title+" ("+string(code)+", "+strconv.Itoa(p.status)+")\n\n"+p.promise+"\n")
}

// Explain returns the title of a problem by its code, and what it promises to the client; "" if there is no such code.
func Explain(code string) (title, promise string) {
	p := problems[counter.Code(code)]
	return p.title, p.promise
}
