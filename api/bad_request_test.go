package api_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
)

// badRequest is a request that must change nothing.
type badRequest struct {
	name, method, target, body string
	headers                    []string
	raw                        string // the bytes of the request, instead of the fields above
	status                     int
	code                       string // "" if net/http answers before any handler
	detail                     string // a part of the detail
}

// request returns the bytes of the request.
func (r badRequest) request() string {
	if r.raw != "" {
		return r.raw
	}
	return requestText(r.method, r.target, r.body, r.headers...)
}

const (
	increment = "/v1/counters/warm/increment"
	set       = "/v1/counters/warm"
	batch     = "/v1/batch"
)

var (
	mib        = strings.Repeat(" ", 1<<20)
	isChunked  = "Transfer-Encoding: chunked"
	longestKey = strings.Repeat("k", 255)
)

// Everything in Redis and Postgres is compared before and after each request.
func TestBadRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "warm", "41")
	b.put(t, "largest", "9223372036854775807")
	b.put(t, "smallest", "-9223372036854775808")
	b.insertRow(t, "cold", 7, 3)
	before := b.state(t)
	require.Greater(t, len(before), 5, "there are three entries, the epochs of their shards, and a row")

	cases := badRequests(t)
	require.Greater(t, len(cases), 100)
	for _, c := range cases {
		a := b.sendRaw(t, c.request())

		require.Equal(t, c.status, a.StatusCode, "%s: %s", c.name, a.text)
		if c.code != "" {
			p := a.problem(t)
			require.Equal(t, c.code, p.Code, "%s: %s", c.name, p.Detail)
			require.Contains(t, p.Detail, c.detail, c.name)
			require.Less(t, len(p.Detail), 400, c.name)
			require.NotEmpty(t, a.Header.Get("X-Request-ID"), c.name)
		}
		require.Equal(t, before, b.state(t), c.name)
	}
}

func badRequests(t *testing.T) []badRequest {
	t.Helper()
	var all []badRequest
	for _, group := range [][]badRequest{
		badIntegers(), badJSON(), badKeys(), badPaths(), badMedia(), tooLargeBodies(), badBatches(), badSingleBatches(), overflows(),
		badIDs(), badWaits(), badReads(), badLists(), badConditions(), badCodings(t),
	} {
		all = append(all, group...)
	}
	return all
}

// badIntegers returns requests with values of by and value that are not 64-bit integers.
func badIntegers() []badRequest {
	var all []badRequest
	for given, detail := range map[string]string{
		"1.0": `must be an integer without fraction or exponent, not "1.0"`, "1.5": "without fraction", "1e2": `"1e2"`, "1E2": "exponent",
		"-0.0": "without fraction", "1e999": "exponent",
		"9223372036854775808": "must be from -9223372036854775808 to 9223372036854775807", "-9223372036854775809": "must be from",
		strings.Repeat("9", 1000): "must be from",
		`"5"`:                     "must be an integer, not a string", `""`: "not a string",
		"null": "not null", "true": "not a boolean", "false": "not a boolean",
		"[5]": "not a list", `{"n":5}`: "not an object", "NaN": "not valid JSON", "Infinity": "not valid JSON", "0x10": "not valid JSON",
		"05": "not valid JSON", "+5": "not valid JSON", "1_000": "not valid JSON", "5.": "not valid JSON", ".5": "not valid JSON",
		"- 5": "not valid JSON",
	} {
		all = append(all,
			badRequest{
				name: "by " + given, method: http.MethodPost, target: increment, body: `{"by":` + given + `}`,
				status: 400, code: "invalid_body", detail: detail,
			},
			badRequest{
				name: "value " + given, method: http.MethodPut, target: set, body: `{"value":` + given + `}`,
				status: 400, code: "invalid_body", detail: detail,
			})
	}
	return all
}

// badJSON returns requests with invalid JSON or wrong fields.
func badJSON() []badRequest {
	long := strings.Repeat("x", 10_000)
	invalid := []badRequest{
		{name: "not JSON", body: `hello`},
		{name: "white space only", body: " \r\n", detail: "ends too early"},
		{name: "cut off", body: `{"by":5`, detail: "ends too early"},
		{name: "cut off after the name", body: `{"by"`},
		{name: "number", body: `5`, detail: "the body must be an object, not a number"},
		{name: "string", body: `"5"`, detail: "not a string"},
		{name: "null", body: `null`, detail: "not null"},
		{name: "boolean", body: `true`, detail: "not a boolean"},
		{name: "list", body: `[{"by":5}]`, detail: "not a list"},
		{name: "twice", body: `{"by":5,"by":6}`, detail: "twice"},
		{name: "twice, escaped", body: `{"by":5,"\u0062y":5}`, detail: "twice"},
		{name: "trailing object", body: `{"by":5}{"by":6}`},
		{name: "trailing number", body: `{"by":5} 1`, detail: "data after"},
		{name: "trailing bracket", body: `{"by":5}}`},
		{name: "trailing garbage", body: `{"by":5} x`},
		{name: "trailing NUL", body: "{\"by\":5}\x00"},
		{name: "trailing comma", body: `{"by":5,}`},
		{name: "leading comma", body: `{,"by":5}`},
		{name: "single quotes", body: `{'by':5}`},
		{name: "bare name", body: `{by:5}`},
		{name: "number as a name", body: `{5:5}`},
		{name: "comment", body: `{"by":5 /* five */}`},
		{name: "byte order mark", body: "\ufeff{\"by\":5}"},
		{name: "UTF-16", body: "\xff\xfe{\x00}\x00"},
		{name: "invalid UTF-8 in a name", body: "{\"b\xff\":5}"},
		{name: "lone surrogate in a name", body: `{"\ud800":5}`},
		{name: "control character in a name", body: "{\"b\ny\":5}"},
		{name: "invalid escape in a name", body: `{"b\x79":5}`},
		{name: "deep", body: `{"by":` + strings.Repeat("[", 20_000)},
		{name: "long and broken", body: `{"by":"` + long + `\x"}`},
		{name: "form", body: `by=5`},
		{name: "chunk shorter than announced", headers: []string{isChunked}, body: "5\r\n{\"by\r\n0\r\n\r\n", detail: "was incomplete"},
		{name: "invalid chunks", headers: []string{isChunked}, body: "zz\r\n{}\r\n0\r\n\r\n", detail: "was incomplete"},
	}
	for i := range invalid {
		c := &invalid[i]
		c.method, c.target, c.status, c.code = http.MethodPost, increment, 400, "invalid_body"
	}
	return append(invalid,
		badRequest{name: "unknown field", method: "POST", target: increment, body: `{"by":5,"and":6}`, status: 400, code: "unknown_field", detail: `"and"`},
		badRequest{name: "upper case", method: "POST", target: increment, body: `{"BY":5}`, status: 400, code: "unknown_field", detail: `"BY"`},
		badRequest{name: "value for by", method: "POST", target: increment, body: `{"value":5}`, status: 400, code: "unknown_field", detail: `"value"`},
		badRequest{name: "by for value", method: "PUT", target: set, body: `{"by":5}`, status: 400, code: "unknown_field", detail: `"by"`},
		badRequest{name: "empty name", method: "POST", target: increment, body: `{"":5}`, status: 400, code: "unknown_field", detail: `""`},
		badRequest{name: "long name", method: "POST", target: increment, body: `{"` + long + `":5}`, status: 400, code: "unknown_field", detail: `x"...`},
		badRequest{name: "bound of a set", method: "PUT", target: set, body: `{"value":5,"min":0}`, status: 400, code: "unknown_field", detail: `"min"`},
		badRequest{name: "bounds that exclude all", method: "POST", target: increment, body: `{"min":2,"max":1}`, status: 400, code: "invalid_body", detail: "greater"},
		badRequest{name: "set without a body", method: "PUT", target: set, status: 400, code: "invalid_body", detail: "value is missing"},
		badRequest{name: "set without a value", method: "PUT", target: set, body: `{}`, status: 400, code: "invalid_body", detail: "value is missing"},
	)
}

func badKeys() []badRequest {
	var all []badRequest
	for encoded, detail := range map[string]string{
		"":                                 "the key is empty",
		"%00":                              "control character (U+0000)",
		"a%0Ab":                            "control character (U+000A) at byte 1",
		"%7F":                              "control character",
		"%C2%85":                           "control character (U+0085)",
		"%FF":                              "not valid UTF-8",
		"%C0%AF":                           "not valid UTF-8",
		"%ED%A0%80":                        "not valid UTF-8",
		"\xff":                             "not valid UTF-8",
		longestKey + "k":                   "the key has 256 bytes",
		strings.Repeat("%F0%9F%98%80", 64): "the key has 256 bytes",
	} {
		for method, suffix := range map[string]string{
			http.MethodGet: "", http.MethodDelete: "", http.MethodPut: "", http.MethodPost: "/increment",
		} {
			body := map[string]string{http.MethodPut: `{"value":5}`}[method]
			all = append(all, badRequest{
				name: method + " " + encoded, method: method, target: "/v1/counters/" + encoded + suffix, body: body,
				status: 400, code: "invalid_key", detail: detail,
			})
		}
	}
	return all
}

func badPaths() []badRequest {
	return []badRequest{
		{name: "slash in the key", method: "PUT", target: "/v1/counters/a/b", body: `{"value":5}`, status: 404, code: "not_found", detail: "percent-encode it as %2F"},
		{name: "slash in the key of an increment", method: "POST", target: "/v1/counters/a/b/increment", status: 404, code: "not_found", detail: "%2F"},
		{name: "slash at the end", method: "POST", target: increment + "/", status: 404, code: "not_found", detail: "%2F"},
		{name: "slashes", method: "PUT", target: "/v1/counters//", body: `{"value":5}`, status: 404, code: "not_found", detail: "%2F"},
		{name: "decoded slash in front", method: "PUT", target: "//v1/counters/warm", body: `{"value":5}`, status: 404, code: "not_found"},
		{name: "dots", method: "PUT", target: "/v1/x/../counters/warm", body: `{"value":5}`, status: 404, code: "not_found"},
		{name: "encoded prefix", method: "PUT", target: "/v1%2Fcounters/warm", body: `{"value":5}`, status: 404, code: "not_found"},
		{name: "encoded letter", method: "POST", target: "/v1/counters/warm/%69ncrement", status: 404, code: "not_found"},
		{name: "no key", method: "PUT", target: "/v1/counters", body: `{"value":5}`, status: 405, code: "method_not_allowed", detail: "GET"},
		{name: "no route", method: "PUT", target: "/v1/counter", body: `{"value":5}`, status: 404, code: "not_found", detail: "openapi"},
		{name: "root", method: "GET", target: "/", status: 404, code: "not_found"},
		{name: "other version", method: "POST", target: "/v2/counters/warm/increment", status: 404, code: "not_found"},
		{name: "upper case", method: "POST", target: "/V1/counters/warm/increment", status: 404, code: "not_found"},
		{name: "unknown problem", method: "GET", target: "/problems/none", status: 404, code: "not_found"},
		{name: "POST to a counter", method: "POST", target: set, body: `{"value":5}`, status: 405, code: "method_not_allowed", detail: "GET"},
		{name: "PATCH", method: "PATCH", target: set, body: `{"value":5}`, status: 405, code: "method_not_allowed"},
		{name: "GET of increment", method: "GET", target: increment, status: 405, code: "method_not_allowed", detail: "POST"},
		{name: "PUT of increment", method: "PUT", target: increment, body: `{"by":5}`, status: 405, code: "method_not_allowed"},
		{name: "GET of batch", method: "GET", target: batch, status: 405, code: "method_not_allowed"},
		{name: "unknown method", method: "BREW", target: increment, status: 405, code: "method_not_allowed"},
		{name: "lower case method", method: "post", target: increment, status: 405, code: "method_not_allowed"},
		{name: "TRACE", method: "TRACE", target: set, status: 405, code: "method_not_allowed"},
		{name: "POST to health", method: "POST", target: "/healthz", status: 405, code: "method_not_allowed"},
		{name: "broken encoding", method: "PUT", target: "/v1/counters/%zz", body: `{"value":5}`, status: 400},
		{name: "cut off encoding", method: "PUT", target: "/v1/counters/warm%2", body: `{"value":5}`, status: 400},
		{name: "space in the target", method: "PUT", target: "/v1/counters/wa rm", body: `{"value":5}`, status: 400},
		{name: "control character in the target", method: "PUT", target: "/v1/counters/wa\x01rm", body: `{"value":5}`, status: 400},
		{name: "no host", raw: "POST " + increment + " HTTP/1.1\r\nConnection: close\r\n\r\n", status: 400},
		{name: "HTTP/3", raw: "POST " + increment + " HTTP/3.0\r\nHost: a\r\n\r\n", status: 505},
		{name: "two lengths", method: "POST", target: increment, body: "{}", headers: []string{"Content-Length: 3"}, status: 400},
		{name: "unknown transfer coding", method: "POST", target: increment, headers: []string{"Transfer-Encoding: gzip"}, status: 501},
		{name: "negative length", method: "POST", target: increment, headers: []string{"Content-Length: -1"}, status: 400},
		{name: "unknown expectation", method: "POST", target: increment, headers: []string{"Expect: coffee"}, status: 417},
		{name: "headers too large", method: "POST", target: increment, headers: []string{"X-Large: " + strings.Repeat("x", 32<<10)}, status: 431},
	}
}

func badMedia() []badRequest {
	var all []badRequest
	for _, header := range []string{
		"Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Content-Type: application/jsonx",
		"Content-Type: application/problem+json", "Content-Type: text/json", "Content-Type:", "Content-Type: json",
		"Content-Type: application/json, text/plain", "Content-Type: application/json; charset=latin1",
		"Content-Type: application/json; charset=utf-16", "Content-Type: application/json; charset", "Content-Type: */*",
		"Content-Type: application/json\r\nContent-Type: application/json",
		"Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding: identity, gzip", "Content-Encoding: ",
		"Content-Encoding: identity\r\nContent-Encoding: deflate",
	} {
		all = append(all, badRequest{
			name: header, method: "POST", target: increment, body: `{"by":5}`, headers: []string{header},
			status: 415, code: "unsupported_media_type",
		})
	}
	return append(all,
		badRequest{
			name: "no media type", status: 415, code: "unsupported_media_type", detail: "missing",
			raw: "POST " + increment + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
		},
		badRequest{
			name: "no media type, chunked", status: 415, code: "unsupported_media_type",
			raw: "POST " + increment + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + isChunked + "\r\n\r\n" + chunked("{}"),
		},
		badRequest{
			name: "set as text", method: "PUT", target: set, body: `{"value":5}`, headers: []string{"Content-Type: text/plain"},
			status: 415, code: "unsupported_media_type",
		},
		badRequest{
			name: "batch as text", method: "POST", target: batch, body: operations(`{"op":"set","key":"warm","value":5}`),
			headers: []string{"Content-Type: text/plain"}, status: 415, code: "unsupported_media_type",
		})
}

func tooLargeBodies() []badRequest {
	announced := func(method, target string, n int) badRequest { // the body is never sent
		return badRequest{
			name: method + " announced", status: 413, code: "body_too_large",
			raw: method + " " + target + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(n) + "\r\n\r\n",
		}
	}
	large := badRequest{status: 413, code: "body_too_large", headers: []string{isChunked}}
	incrementChunked, setChunked, batchChunked, batchLong := large, large, large, large
	incrementChunked.name, incrementChunked.method, incrementChunked.target = "increment in chunks", "POST", increment
	incrementChunked.body = chunked(mib + `{"by":5}`)
	setChunked.name, setChunked.method, setChunked.target = "set in chunks", "PUT", set
	setChunked.body = chunked(`{"value":5}` + mib)
	batchChunked.name, batchChunked.method, batchChunked.target = "batch in chunks", "POST", batch
	batchChunked.body = chunked(operations(`{"op":"set","key":"warm","value":5}`) + strings.Repeat(mib, 8))
	batchLong.name, batchLong.method, batchLong.target = "batch with a long key", "POST", batch
	batchLong.body = chunked(operations(`{"op":"set","key":"` + strings.Repeat("k", 8<<20) + `","value":5}`))
	return []badRequest{
		announced("POST", increment, api.MaxBodyBytes+1), announced("PUT", set, api.MaxBodyBytes+1),
		announced("POST", batch, api.MaxBatchBodyBytes+1),
		incrementChunked, setChunked, batchChunked, batchLong,
	}
}

func overflows() []badRequest {
	all := []badRequest{
		{name: "up by one", target: "/v1/counters/largest/increment"},
		{name: "up by the largest", target: "/v1/counters/warm/increment", body: `{"by":9223372036854775807}`},
		{name: "down by one", target: "/v1/counters/smallest/increment", body: `{"by":-1}`},
		{name: "down by the smallest", target: "/v1/counters/smallest/increment", body: `{"by":-9223372036854775808}`},
		{name: "minimal", target: "/v1/counters/largest/increment", headers: []string{"Prefer: return=minimal"}},
		{name: "batch", target: batch, body: operations(`{"op":"increment","key":"largest"}`, `{"op":"increment","key":"smallest","by":-1}`)},
	}
	for i := range all {
		all[i].method, all[i].status, all[i].code, all[i].detail = "POST", 409, "overflow", "64-bit"
	}
	return all
}
