package ops

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
)

// ServeProfiles serves Go's profiles (net/http/pprof) under /debug/pprof/ on a free port of 127.0.0.1 until ctx is done, and
// logs where. It does not block. They are on a port of their own, and never on the process's address, because they tell much
// about a process and taking them slows it down: only who is on the machine is to get at them.
func ServeProfiles(ctx context.Context, log *slog.Logger) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // and those that it lists
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	context.AfterFunc(ctx, func() { _ = server.Close() }) // a profile that is being taken is of no use any more
	log.Info("serving profiles", "url", "http://"+listener.Addr().String()+"/debug/pprof/")
	go func() { _ = server.Serve(listener) }() // ends with Close
	return nil
}
