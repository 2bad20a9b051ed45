package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
)

const password = "correct horse battery"

// hash is a bcrypt hash of the lowest cost.
var hash = sync.OnceValue(func() string {
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(b)
})

func people() []auth.User {
	return []auth.User{{Name: "olga", Role: auth.Operator, Hash: hash()}, {Name: "vic", Role: auth.Viewer, Hash: hash()}}
}

// door is a dashboard that listens, like that of the command, with the session cookie of its visitor.
type door struct {
	address string
	cookie  string
}

func (b *testBundle) serve(t *testing.T, write bool, o auth.Options) *door {
	t.Helper()
	listener, err := process.Listen("127.0.0.1:0", "X")
	require.NoError(t, err)
	if o.Address == "" {
		o.Address = listener.Addr().String()
	}
	pages := b.pages(t, write, o)
	handler := process.Health{Registry: prometheus.NewRegistry(), Logger: b.log}.Handler(pages)
	localtest.Run(t, func(ctx context.Context) error {
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() { pages.Run(ctx) })
		return process.DefaultLimits().Serve(ctx, listener, handler, slog.New(slog.DiscardHandler))
	})
	return &door{address: listener.Addr().String()}
}

// answer is the response to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// send writes the request byte by byte, since http.Client would normalize its path and headers. headers are lines. An empty form means no
// body.
func (d *door) send(t *testing.T, method, target, form string, headers ...string) answer {
	t.Helper()
	connection, err := net.DialTimeout("tcp", d.address, 10*time.Second)
	require.NoError(t, err)
	defer connection.Close()
	require.NoError(t, connection.SetDeadline(time.Now().Add(time.Minute)))
	var text strings.Builder
	text.WriteString(method + " " + target + " HTTP/1.1\r\nConnection: close\r\n")
	host := "Host: " + d.address
	for _, h := range headers {
		if strings.HasPrefix(h, "Host:") {
			host = h
		} else {
			text.WriteString(h + "\r\n")
		}
	}
	text.WriteString(host + "\r\n")
	if d.cookie != "" {
		text.WriteString("Cookie: " + d.cookie + "\r\n")
	}
	if form != "" {
		text.WriteString("Content-Type: application/x-www-form-urlencoded\r\n")
	}
	text.WriteString("Content-Length: " + strconv.Itoa(len(form)) + "\r\n\r\n" + form)
	_, err = io.WriteString(connection, text.String())
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return answer{status: response.StatusCode, header: response.Header, body: string(body)}
}

// get sends the request of a browser for a page.
func (d *door) get(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	return d.send(t, http.MethodGet, target, "", append(headers, "Accept: text/html")...)
}

// post sends a form, as a browser does.
func (d *door) post(t *testing.T, target string, form url.Values, headers ...string) answer {
	t.Helper()
	return d.send(t, http.MethodPost, target, form.Encode(), append(headers, "Sec-Fetch-Site: same-origin")...)
}

// as signs in, and returns the door with the session cookie.
func (d *door) as(t *testing.T, name string) *door {
	t.Helper()
	signed := (&door{address: d.address}).post(t, "/signin", url.Values{"name": {name}, "password": {password}})
	require.Equal(t, http.StatusSeeOther, signed.status, signed.body)
	return &door{address: d.address, cookie: cookieOf(signed)}
}

func cookieOf(a answer) string {
	pair, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return pair
}

// follow requests the page that an answer redirects to.
func (d *door) follow(t *testing.T, a answer) answer {
	t.Helper()
	require.Equal(t, http.StatusSeeOther, a.status, a.body)
	return d.get(t, a.header.Get("Location"))
}

// event is an event of a stream.
type event struct {
	Parts  map[string]string `json:"parts"`
	Now    int64             `json:"now"`
	Points []struct {
		T int64 `json:"t"`
		D int64 `json:"d"`
	} `json:"points"`
}

// viewer is one open stream.
type viewer struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

// stream serves the open dashboard, and returns the URL of its live updates.
func (b *testBundle) stream(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	return server.URL
}

func watch(t *testing.T, url string, cookies ...string) *viewer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	request.Header["Cookie"] = cookies
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	require.NoError(t, err)
	t.Cleanup(func() {
		cancel()
		_ = response.Body.Close()
	})
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	return &viewer{body: response.Body, lines: lines}
}

// next returns the next event; nil when the stream has ended.
func (v *viewer) next(t *testing.T) *event {
	t.Helper()
	for v.lines.Scan() {
		if text, ok := strings.CutPrefix(v.lines.Text(), "data: "); ok {
			var e event
			require.NoError(t, json.Unmarshal([]byte(text), &e))
			return &e
		}
	}
	return nil
}

// between returns the unescaped HTML between two texts.
func between(t *testing.T, text, before, after string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, before)
	require.True(t, found, "%s in\n%s", before, text)
	inner, _, _ := strings.Cut(rest, after)
	return strings.ReplaceAll(inner, "&#43;", "+")
}
