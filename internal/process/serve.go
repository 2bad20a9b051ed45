package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Listen opens addr (host:port). Its error has one line, and names variable, the environment variable of the address.
func Listen(addr, variable string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: the port is in use: stop the program that uses it, or set %s to another address",
			addr, variable)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("cannot listen on %s: not allowed: set %s to a port above 1023", addr, variable)
	default:
		return nil, fmt.Errorf("cannot listen on %s: set %s to an address of this machine: %w", addr, variable, err)
	}
}

// Limits bound the resources of one connection.
type Limits struct {
	Header      time.Duration // to the end of the headers
	Read        time.Duration // to the end of the body
	Write       time.Duration // from the end of the headers to the end of the answer
	Idle        time.Duration // between two requests
	Grace       time.Duration // for requests in progress at shutdown
	HeaderBytes int
}

// DefaultLimits returns the limits of every process.
func DefaultLimits() Limits {
	return Limits{
		Header:      5 * time.Second,  // headers fit in one packet
		Read:        30 * time.Second, // 8 MiB, the largest body, needs 2.2 Mbit/s
		Write:       75 * time.Second, // reading the body, carrying it out, waiting for Postgres (30 s), sending the answer
		Idle:        2 * time.Minute,  // longer than the usual 60 s of load balancers, so that they close first
		Grace:       7 * time.Second,  // process managers often kill after 10 s, and the background work ends after the grace
		HeaderBytes: 16 << 10,         // a percent-encoded key of 255 bytes has under 1 KiB, cookies of other services up to 8 KiB
	}
}

// Serve answers requests on listener until ctx is done. Then it accepts no more, and waits up to Limits.Grace for requests in progress. The
// error is context.DeadlineExceeded if it aborted requests; any other error means that the server failed. Serve closes the listener.
func (l Limits) Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	return l.ServeTLS(ctx, listener, nil, handler, log)
}

// ServeTLS is Serve with TLS, and then HTTP/2 too, unless encryption is nil.
func (l Limits) ServeTLS(
	ctx context.Context, listener net.Listener, encryption *tls.Config, handler http.Handler, log *slog.Logger,
) error {
	// Request contexts are not derived from ctx, because requests in progress are answered after it is done.
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         encryption,
		ReadHeaderTimeout: l.Header,
		ReadTimeout:       l.Read,
		WriteTimeout:      l.Write,
		IdleTimeout:       l.Idle,
		MaxHeaderBytes:    l.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(limitedHandler(log.Handler()), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() {
		if encryption != nil {
			ended <- server.ServeTLS(listener, "", "") // encryption has the certificate
			return
		}
		ended <- server.Serve(listener)
	}()
	log.Info("listening", "address", listener.Addr().String())

	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.Grace)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		_ = server.Close() // fails because Shutdown has closed the listener
		err = fmt.Errorf("aborted HTTP requests that did not end within %s: %w", l.Grace, err)
	}
	<-ended //nolint:errcheck // http.ErrServerClosed
	return err
}

// shutdownDelay is the time between the signal to stop and the end. Requests are still answered, but /readyz answers 503, so that a load
// balancer stops sending requests before the port closes. The zero value is ready to use.
type shutdownDelay struct{ begun atomic.Bool }

// after returns a context that ends delay after ctx does. stop releases it.
func (s *shutdownDelay) after(ctx context.Context, delay time.Duration) (later context.Context, stop context.CancelFunc) {
	later, end := context.WithCancel(context.WithoutCancel(ctx))
	stopWatching := context.AfterFunc(ctx, func() {
		s.begun.Store(true)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			end()
		case <-later.Done():
		}
	})
	return later, func() {
		stopWatching()
		end()
	}
}

// serveProfiles serves Go's profiles (net/http/pprof) under /debug/pprof/ on a free port of 127.0.0.1 until ctx is done, and logs the URL.
// It does not block. Profiles reveal much about a process and slow it down, so they are reachable from this machine only.
func serveProfiles(ctx context.Context, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // and the profiles that it lists
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	limits := DefaultLimits()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: limits.Header, IdleTimeout: limits.Idle}
	context.AfterFunc(ctx, func() { _ = server.Close() }) // also aborts a profile in progress
	log.Info("serving profiles", "url", "http://"+listener.Addr().String()+"/debug/pprof/")
	go func() { _ = server.Serve(listener) }() // ends with Close
	return nil
}

// Bounds on the lines that net/http itself logs. Clients cause them, for example by a failed TLS handshake, so a port scan must not fill
// a disk.
const (
	serverLinesPerSec = 1
	serverLinesBurst  = 20
)

// limited passes records to a handler, as far as the rate allows.
type limited struct {
	slog.Handler

	limit      *rate.Limiter
	suppressed *atomic.Int64 // records since the last one that was passed on
}

// Handle implements slog.Handler.
func (l limited) Handle(ctx context.Context, r slog.Record) error {
	if !l.limit.Allow() {
		l.suppressed.Add(1)
		return nil
	}
	r.AddAttrs(slog.Int64("suppressed", l.suppressed.Swap(0)))
	return l.Handler.Handle(ctx, r)
}

// limitedHandler returns next with the bounds for lines of net/http.
func limitedHandler(next slog.Handler) slog.Handler {
	return limited{next, rate.NewLimiter(serverLinesPerSec, serverLinesBurst), new(atomic.Int64)}
}
