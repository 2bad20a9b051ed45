package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	headerTimeout = 5 * time.Second  // from the connection, or the previous answer's end, to the end of the headers
	readTimeout   = 30 * time.Second // to the end of the body: 8 MiB within it are 2.2 Mbit/s
	writeTimeout  = 60 * time.Second // from the end of the headers to the end of the answer
	idleTimeout   = 2 * time.Minute  // longer than a load balancer's usual 60 s, so that it closes first and not we
	headerBytes   = 16 << 10         // a key of 255 bytes percent-encoded is under 1 KiB

	// shutdownGrace bounds the wait for the answers that are on their way when the process is told to stop.
	shutdownGrace = 8 * time.Second
)

// Listen opens addr (host:port). When it cannot, the error says why in one line and names variable, the environment
// variable that moves the process elsewhere.
func Listen(addr, variable string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: the port is taken: stop what uses it, or set %s to another address", addr, variable)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("cannot listen on %s: not allowed: set %s to a port above 1023", addr, variable)
	default:
		return nil, fmt.Errorf("cannot listen on %s: set %s to an address of this machine: %w", addr, variable, err)
	}
}

// Serve answers requests on listener until ctx is done; then it takes no more, waits up to 8 s for those that are under
// way, and returns nil. It closes the listener in any case. An error means that the server could not go on.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Info("listening", "address", listener.Addr().String())

	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	return shutDown(server, ended, log)
}

// shutDown ends the server. The requests' contexts are not cancelled with ctx: they are to be answered.
func shutDown(server *http.Server, ended <-chan error, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()

	if err := server.Shutdown(ctx); err != nil {
		log.Warn("requests were cut off at shutdown", "waited", shutdownGrace, "error", err)
		_ = server.Close() // its error is that of the listener, which Shutdown has closed
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}
