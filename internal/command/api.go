package command

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/deadletter"
	"github.com/afterwrite/afterwrite/internal/flush"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
)

// baseTimeout bounds the one read of Postgres that a request may wait for, the value of a cold key.
const baseTimeout = 100 * time.Millisecond

var apiPlan = process.Plan{
	Name:     "api",
	Variable: "AFTERWRITE_API_ADDR",
	Addr:     func(c config.Config) string { return c.APIAddr },
	Pools: func(config.Config) process.Pools {
		// Writes share one call to Redis, so the connections are for hints, hydration and counting. Reads of cold keys share
		// those to Postgres.
		return process.Pools{Redis: 64, Postgres: 4}
	},
	Public: true,
}

type apiCommand struct{}

// Run implements the command.
func (apiCommand) Run(w *world) error {
	p, err := process.Start(w.ctx, w.environment(), apiPlan)
	if err != nil {
		return err
	}
	defer p.Close()

	p.Counted.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_postgres_up",
		Help: "1 while this process's last contact with Postgres was good, else 0.",
	}, func() float64 {
		if p.Store.Up() {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_dirty_keys_limit",
		Help: "AFTERWRITE_MAX_DIRTY of this process: so many dirty and dead keys together, and clean ones get no writes.",
	}, func() float64 { return float64(p.Config.MaxDirty) }))
	limit := writepath.NewLimit(p.Cache, p.Config.MaxDirty)
	defer limit.Close()
	writer := p.Cache.NewWriter(limit.MayDirty)
	defer writer.Close()
	loader := store.NewLoader(p.Store, baseTimeout)
	defer loader.Close()
	hints := tasks.NewEnqueuer(asynq.NewClientFromRedisClient(p.Redis), tasks.EnqueuerOptions{
		Shards: p.Config.Shards, FlushBatch: p.Config.FlushBatch, FlushInterval: p.Config.FlushInterval,
		Logger: p.Log, Registerer: p.Counted,
	})
	defer closeBounded(hints)

	core := writepath.New(p.Cache, writer, loader, hints)
	if provider := p.Provider(); provider != nil {
		writer.WithTracing(provider)
		core.WithTracing(func(ctx context.Context) writepath.Hints { return hints.Within(ctx) })
	}
	barrier := p.Cache.NewBarrier(p.Config.WaitReplicas)
	defer barrier.Close()
	service := core.WithBarrier(barrier)
	// Clients that wait for Postgres are answered as soon as the process is told to stop, and not cut off after its grace.
	defer service.StopWaiting()
	defer context.AfterFunc(w.ctx, service.StopWaiting)()
	return p.Run(w.ctx, api.New(service, api.Options{
		Logger: p.Log, Metrics: p.Counted, Health: p.Health().Handlers(), Stopping: p.Stopping,
		Admin: api.Admin{
			Token: p.Config.AdminToken,
			Dead:  deadletter.New(deadletter.Options{Cache: p.Cache, Store: p.Store, Redis: p.Redis, Logger: p.Log}),
		},
		Flusher: flush.New(p.Cache, asynq.NewClientFromRedisClient(p.Redis)), Ending: w.ctx, Tracing: p.Provider(),
	}))
}

// closeTimeout bounds the sending of the last hints, after the process has stopped serving.
const closeTimeout = 2 * time.Second

// closeBounded lets an Enqueuer send what it has, for closeTimeout at most. What it drops, the sweep finds.
func closeBounded(hints *tasks.Enqueuer) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	hints.Close(ctx)
}
