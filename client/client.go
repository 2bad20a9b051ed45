package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options configure a Client. The zero value works for a server without API keys.
type Options struct {
	// APIKey is sent as Authorization: Bearer. "": none.
	APIKey string
	// Timeout bounds each attempt, beside what the call itself waits for Postgres. 0: 10 s. The context bounds the whole call.
	Timeout time.Duration
	// Attempts bounds how often a request is sent. 1: never again. 0: 4.
	Attempts int
	// MaxRetryAfter bounds the pause that a server may ask for. If it asks for more, the call fails at once. 0: 30 s.
	MaxRetryAfter time.Duration
	// UserAgent is the header User-Agent. "": afterwrite-go.
	UserAgent string
	// Transport sends the requests, for a proxy, a private certificate or a trace. Nil: one of the Client's own, which keeps up to 256
	// connections open for reuse.
	Transport http.RoundTripper
}

// Client sends requests to one afterwrite. It is safe for concurrent use, and meant to be shared: it reuses connections.
type Client struct {
	base    string
	options Options
	http    *http.Client
	own     *http.Transport // nil if Options.Transport is set
}

// New returns a Client of the server at an address such as http://127.0.0.1:8080. It does not connect. Close it at the end.
func New(address string, o Options) (*Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("client: the address of the server: %w", err)
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("client: the address of the server must be like https://counters.example, without query or user")
	case o.Timeout < 0 || o.Attempts < 0 || o.MaxRetryAfter < 0:
		return nil, errors.New("client: Timeout, Attempts and MaxRetryAfter must not be negative")
	}
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.Attempts, 4)
	setDefault(&o.MaxRetryAfter, 30*time.Second)
	setDefault(&o.UserAgent, "afterwrite-go")
	c := &Client{base: strings.TrimRight(u.String(), "/"), options: o}
	if o.Transport == nil {
		c.own = transport()
		o.Transport = c.own
	}
	// The API never redirects: a redirect means a wrong address, and following it would send a write, with its key, elsewhere.
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &http.Client{Transport: o.Transport, CheckRedirect: refuse}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// transport returns the defaults of net/http with more idle connections: with its 2 for each host, most of many concurrent requests
// would open a connection each.
func transport() *http.Transport {
	t := &http.Transport{}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		t = standard.Clone()
	}
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 256, 256
	t.IdleConnTimeout = 90 * time.Second // the server's is 2 minutes: so the client closes first, and no request meets a closing connection
	return t
}

// Close closes the idle connections, unless Options.Transport is set. It does not wait for calls in progress.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}
