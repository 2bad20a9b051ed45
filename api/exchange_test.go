package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/stretchr/testify/require"
)

// answer is a response and its body.
type answer struct {
	*http.Response

	text string
}

// problem is a decoded problem document.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// problem decodes the answer, which must be a consistent problem document.
func (a *answer) problem(t *testing.T) problem {
	t.Helper()
	require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"), a.text)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	var p problem
	require.NoError(t, json.Unmarshal([]byte(a.text), &p))
	require.Equal(t, a.StatusCode, p.Status)
	require.Equal(t, "/problems/"+p.Code, p.Type)
	require.NotEmpty(t, p.Title)
	return p
}

// requestText returns the bytes of a request, with the target exactly as given. Each of headers is "Name: value". A body gets
// Content-Type and Content-Length unless headers have a Content-Type or a Transfer-Encoding.
func requestText(method, target, body string, headers ...string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s HTTP/1.1\r\nHost: counters.test\r\nConnection: close\r\n", method, target)
	lower := strings.ToLower(strings.Join(headers, "\r\n"))
	if body != "" && !strings.Contains(lower, "content-type:") {
		s.WriteString("Content-Type: application/json\r\n")
	}
	if body != "" && !strings.Contains(lower, "transfer-encoding:") {
		fmt.Fprintf(&s, "Content-Length: %d\r\n", len(body))
	}
	for _, h := range headers {
		s.WriteString(h + "\r\n")
	}
	return s.String() + "\r\n" + body
}

// chunked encodes a body in one chunk.
func chunked(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }

// send sends a request on a new connection, and checks the request and the answer against the OpenAPI document.
func (b *bundle) send(t testingT, method, target, body string, headers ...string) *answer {
	t.Helper()
	return b.sendRaw(t, requestText(method, target, body, headers...))
}

// sendRaw is send for the bytes of a request.
func (b *bundle) sendRaw(t testingT, request string) *answer {
	t.Helper()
	connection := b.dial(t)
	defer connection.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(connection, request) // fails if the server answers and closes before it has read all
	}()
	a := readAnswer(t, connection, request)
	_ = connection.Close()
	<-written
	return a
}

func (b *bundle) dial(t testingT) net.Conn {
	t.Helper()
	connection, err := net.DialTimeout("tcp", b.addr, patience)
	require.NoError(t, err)
	require.NoError(t, connection.SetDeadline(time.Now().Add(patience)))
	return connection
}

func readAnswer(t testingT, connection io.Reader, request string) *answer {
	t.Helper()
	method, _, _ := strings.Cut(request, " ")
	reader, ok := connection.(*bufio.Reader) // the caller reads several answers from the connection
	if !ok {
		reader = bufio.NewReader(connection)
	}
	response, err := http.ReadResponse(reader, &http.Request{Method: method})
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	a := &answer{Response: response, text: string(text)}
	checkContract(t, request, a)
	return a
}

// testingT is what *testing.T, *testing.F and *rapid.T have in common.
type testingT interface {
	require.TestingT
	Helper()
}

// contract returns the OpenAPI document that checkContract uses.
var contract = sync.OnceValues(func() (routers.Router, error) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"text/html", "text/css", "text/javascript", "image/png"} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.FileBodyDecoder)
	}
	return gorillamux.NewRouter(document)
})

// answered is an operation of the document, and a status that a test has met.
type answered struct {
	method, path string
	status       int
}

// answers holds every answered that checkContract has seen.
var answers sync.Map

// missingAnswers returns an error if the document has a status of an operation that no test has met. It runs after all tests, and does
// nothing if only some were run.
func missingAnswers() error {
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.list").Value.String() != "" {
		return nil
	}
	document, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		return err
	}
	var missing []string
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				code, err := strconv.Atoi(status)
				if err != nil {
					return err
				}
				if _, met := answers.Load(answered{method, path, code}); !met {
					missing = append(missing, method+" "+path+" "+status)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("no test meets these documented answers:\n%s", strings.Join(missing, "\n"))
}

var keyInPath = regexp.MustCompile(`^/v1/(counters|admin/dead)/[^/?]+`)

// checkContract fails the test if the document does not allow the answer or, unless the server rejected it, the request. It
// ignores requests that match no route of the document.
func checkContract(t testingT, raw string, a *answer) {
	t.Helper()
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil || a.Header.Get("X-Request-ID") == "" {
		return // net/http rejected it before it reached the api
	}
	router, err := contract()
	require.NoError(t, err)
	if !strings.HasPrefix(raw, "POST /v1/admin/dead/redrive ") {
		request.RequestURI = keyInPath.ReplaceAllString(request.RequestURI, "/v1/$1/key") // kin-openapi's router decodes slashes
	}
	request.URL, err = url.ParseRequestURI(request.RequestURI)
	if err != nil || strings.HasSuffix(request.URL.Path, "/") || request.URL.RawPath != "" {
		return // kin-openapi's router drops a slash at the end, and decodes the path
	}
	if request.Method == http.MethodHead {
		request.Method = http.MethodGet // HEAD is documented once, for all routes with GET
	}
	route, parameters, err := router.FindRoute(request)
	if err != nil {
		return
	}
	answers.Store(answered{route.Method, route.Path, a.StatusCode}, true)
	input := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, ExcludeResponseBody: a.text == "" || isNDJSON(a.Header),
			// The document is about what a compressed body holds.
			ExcludeRequestBody: request.Header.Get("Content-Encoding") != "" || isNDJSON(request.Header),
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		},
	}
	if a.StatusCode < http.StatusBadRequest && !strings.Contains(a.text, `"error":{`) { // nor a batch with a failed operation
		require.NoError(t, openapi3filter.ValidateRequest(context.Background(), input), "the document does not allow this accepted request")
	}
	require.NoError(t, openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.StatusCode, Header: a.Header,
		Body: io.NopCloser(bytes.NewReader([]byte(a.text))), Options: input.Options,
	}), "%s: the document does not allow this answer: %s", request.RequestURI, a.text)
	if isNDJSON(a.Header) {
		schema := route.Operation.Responses.Status(a.StatusCode).Value.Content["application/x-ndjson"].Schema.Value
		for line := range strings.Lines(a.text) {
			var value any
			require.NoError(t, json.Unmarshal([]byte(line), &value), line)
			require.NoError(t, schema.VisitJSON(value), "the document does not allow this line: %s", line)
		}
	}
}

// isNDJSON reports whether the body has a JSON object on each line. The document has the schema of one line.
func isNDJSON(h http.Header) bool { return strings.HasSuffix(h.Get("Content-Type"), "ndjson") }

var _ testingT = (*testing.T)(nil)
