// Package ops is what every long-running process offers to whoever operates it: a logger, and on its address /healthz
// (the process is up), /readyz (what it depends on answers) and /metrics (Prometheus).
//
//	log, err := ops.NewLogger(os.Stderr, "text", "info", "worker")
//	registry := ops.NewRegistry()
//	handler := ops.Handler(ops.HandlerOptions{
//		Registry: registry,
//		Logger:   log,
//		Checks:   []ops.Check{{Name: "redis", Required: true, Probe: pingRedis}},
//	})
//	listener, err := ops.Listen("127.0.0.1:8082", "AFTERWRITE_WORKER_ADDR")
//	err = ops.Serve(ctx, listener, handler, log) // until ctx is done, then gracefully
package ops
