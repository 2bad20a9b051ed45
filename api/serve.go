package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// limits bound what one connection can take of the server.
type limits struct {
	header      time.Duration // to the end of the headers
	read        time.Duration // to the end of the body
	write       time.Duration // from the end of the headers to the end of the answer
	idle        time.Duration // between two requests
	grace       time.Duration // for what is under way when the process is told to stop
	headerBytes int
}

// defaultLimits are those of Serve.
func defaultLimits() limits {
	return limits{
		header:      5 * time.Second,  // headers fit in one packet
		read:        30 * time.Second, // a batch of 8 MiB within it takes 2.2 Mbit/s
		write:       75 * time.Second, // the time to read the body, to be carried out, to wait for Postgres (30 s), and to be fetched
		idle:        2 * time.Minute,  // longer than the usual 60 s of load balancers, so that they close first
		grace:       7 * time.Second,  // process managers often kill 10 s after asking, and the hints are sent after this
		headerBytes: 16 << 10,         // the longest key, percent-encoded, is under 1 KiB; cookies of other services 8
	}
}

// Serve listens on addr (host:port) and answers with handler until ctx is done; then it takes no more connections, gives
// the requests that are under way 7 s to be answered, and returns nil, or an error if it had to cut some off.
func Serve(ctx context.Context, handler http.Handler, addr string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	return ServeListener(ctx, handler, listener)
}

// ServeListener is Serve on a listener that the caller has opened, and which it closes.
func ServeListener(ctx context.Context, handler http.Handler, listener net.Listener) error {
	return serve(ctx, handler, listener, defaultLimits())
}

func serve(ctx context.Context, handler http.Handler, listener net.Listener, l limits) error {
	// The requests' contexts do not come from ctx: they are to be answered after it is done.
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: l.header,
		ReadTimeout:       l.read,
		WriteTimeout:      l.write,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    l.headerBytes,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.grace)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		_ = server.Close() // its error is that of the listener, which Shutdown has closed
		err = fmt.Errorf("cut off HTTP requests that took longer than %s to end: %w", l.grace, err)
	}
	<-ended //nolint:errcheck // http.ErrServerClosed
	return err
}
