package command

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/deadletter"
	"github.com/afterwrite/afterwrite/internal/flush"
	"github.com/afterwrite/afterwrite/internal/ops"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
)

// baseTimeout bounds the one read of Postgres that a request may wait for, the value of a cold key.
const baseTimeout = 100 * time.Millisecond

var apiPlan = plan{
	name:     "api",
	variable: "AFTERWRITE_API_ADDR",
	addr:     func(c config.Config) string { return c.APIAddr },
	// Writes share one call, so the connections are for hints, hydration and counting.
	redisConns:    func(config.Config) int { return 64 },
	postgresConns: func(config.Config) int { return 4 }, // cold keys share their reads
}

type apiCommand struct{}

// Run implements the command.
func (apiCommand) Run(w *world) error {
	p, err := boot(w, apiPlan)
	if err != nil {
		return err
	}
	defer p.close()

	p.counted.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_postgres_up",
		Help: "1 while this process's last contact with Postgres was good, else 0.",
	}, func() float64 {
		if p.store.Up() {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_dirty_keys_limit",
		Help: "AFTERWRITE_MAX_DIRTY of this process: so many dirty and dead keys together, and clean ones get no writes.",
	}, func() float64 { return float64(p.config.MaxDirty) }))
	limit := writepath.NewLimit(p.cache, p.config.MaxDirty)
	defer limit.Close()
	writer := p.cache.NewWriter(limit.MayDirty)
	defer writer.Close()
	loader := store.NewLoader(p.store, baseTimeout)
	defer loader.Close()
	hints := tasks.NewEnqueuer(asynq.NewClientFromRedisClient(p.redis), tasks.EnqueuerOptions{
		Shards: p.config.Shards, FlushBatch: p.config.FlushBatch, FlushInterval: p.config.FlushInterval,
		Logger: p.log, Registerer: p.counted,
	})
	defer closeBounded(hints)

	core := writepath.New(p.cache, writer, loader, hints)
	if provider := p.tracing.Provider(); provider != nil {
		writer.WithTracing(provider)
		core.WithTracing(func(ctx context.Context) writepath.Hints { return hints.Within(ctx) })
	}
	barrier := p.cache.NewBarrier(p.config.WaitReplicas)
	defer barrier.Close()
	service := &apiService{
		Service: core.WithBarrier(barrier), cache: p.cache, store: p.store,
	}
	// Who waits for Postgres is answered as soon as the process is to end, and not cut off after its grace.
	defer service.StopWaiting()
	defer context.AfterFunc(w.ctx, service.StopWaiting)()
	dead := deadletter.New(deadletter.Options{Cache: p.cache, Store: p.store, Redis: p.redis, Logger: p.log})
	var farewell api.Farewell
	handler := api.New(service, api.Options{
		Logger: p.log, Registry: p.registry, Counted: p.counted, Version: programVersion(), Farewell: &farewell,
		Admin:   api.Admin{Token: p.config.AdminToken, Dead: dead},
		Flusher: flush.New(p.cache, asynq.NewClientFromRedisClient(p.redis)), Ending: w.ctx, Tracing: p.tracing.Provider(),
	})
	listener, err := ops.Listen(p.address(), p.variable)
	if err != nil {
		return err
	}
	p.log.Info("listening", "address", listener.Addr().String())
	defer p.beat(w.ctx)()
	ctx, stop := farewell.Context(w.ctx, p.config.ShutdownDelay)
	defer stop()
	return api.ServeListener(ctx, handler, listener)
}

// closeBounded lets an Enqueuer send what it has, for closeTimeout at most. What it drops, the sweep finds.
func closeBounded(hints *tasks.Enqueuer) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	hints.Close(ctx)
}

// apiService is the write path with what /readyz asks.
type apiService struct {
	*writepath.Service

	cache *cache.Cache
	store *store.Store
}

// Ready implements api.Counters. Both are asked at the same time, so a Postgres that hangs does not make Redis late.
func (s *apiService) Ready(ctx context.Context) (redis, postgres error) {
	answer := make(chan error, 1)
	go func() { answer <- s.store.Ping(ctx) }()
	redis = s.cache.Ping(ctx)
	return redis, <-answer
}
