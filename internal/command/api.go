package command

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
)

var apiPlan = process.Plan{
	Name:     "api",
	Variable: "AFTERWRITE_API_ADDR",
	Addr:     func(c config.Config) string { return c.APIAddr },
	Pools: func(config.Config) process.Pools {
		// Writes are batched into few calls to Redis, so most connections serve hints, hydration and counting. Reads of cold keys share
		// the connections to Postgres.
		return process.Pools{Redis: 64, Postgres: 4, Reads: true}
	},
	Public:       true,
	Refuse:       refuseOpenAPI,
	TLS:          true,
	UsesMappings: true,
	Durable:      true,
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
		Help: "1 if this process's last call to Postgres succeeded, else 0.",
	}, func() float64 {
		if p.Store.Up() {
			return 1
		}
		return 0
	}), prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "afterwrite_standby_reads_total",
		Help: "Reads of cold counters, lists and largest counters that the standby in AFTERWRITE_DATABASE_READ_URL has served.",
	}, func() float64 { return float64(p.Store.StandbyReads()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_dirty_keys_limit",
		Help: "AFTERWRITE_MAX_DIRTY of this process: with as many dirty and dead keys, clean keys accept no writes.",
	}, func() float64 { return float64(p.Config.MaxDirty) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_history_pending_limit",
		Help: "One shard's share of AFTERWRITE_MAX_HISTORY of this process: with as many waiting operations, it accepts none on " +
			"counters with a history.",
	}, func() float64 { return float64(p.Cache.MaxRecords()) }))
	service := writepath.Open(writepath.Parts{
		Cache: p.Cache, Store: p.Store, MaxDirty: p.Config.MaxDirty, Tracing: p.Provider(),
		Durability: writepath.DurabilityOf(p.Config.Durability), WaitReplicas: p.Config.WaitReplicas,
		Sender: tasks.NewSender(p.Redis, p.Config.Prefix()),
		Enqueuer: tasks.EnqueuerOptions{
			Shards: p.Config.Shards, FlushBatch: p.Config.FlushBatch, FlushInterval: p.Config.FlushInterval,
			Logger: p.Log, Registerer: p.Counted,
		},
	})
	defer service.Close()
	p.Counted.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "afterwrite_reconciled_keys_total",
		Help: "Keys repaired because Redis had lost writes that Postgres has.",
	}, func() float64 { return float64(service.Renewed()) }))
	// At shutdown, clients that wait for Postgres are answered at once, instead of being aborted after the grace.
	defer context.AfterFunc(w.ctx, service.StopWaiting)()
	keys, watch, err := watchKeys(p.Config, p.Log)
	if err != nil {
		return err
	}
	operator := operate.New(operate.Options{Cache: p.Cache, Store: p.Store, Redis: p.Redis, Logger: p.Log})
	lists := catalog.New(catalog.Options{Cache: p.Cache, Store: p.Store, Counters: service, TopEnabled: p.Config.Top})
	handler := api.New(service, api.Options{
		Logger: p.Log, Metrics: p.Counted, Health: p.Health().Handlers(), Stopping: p.Stopping,
		Keys: keys, Operator: operator, CORSOrigins: config.Words(p.Config.CORSOrigins),
		Flusher: operator, Lister: lists, Historian: lists, Shutdown: w.ctx, Tracing: p.Provider(),
	})
	parts := []func(context.Context) error{watch}
	if p.Config.RESPAddr != "" {
		parts = append(parts, p.Part(process.Second{
			Addr: p.Config.RESPAddr, Variable: "AFTERWRITE_RESP_ADDR", Refuse: refuseOpenRESP,
			Serve: resp.New(service, resp.Options{
				Logger: p.Log, Metrics: p.Counted, Keys: keys, Recorded: p.Cache.Recorded, Lister: lists,
				Backlog: p.Cache.Backlog, Tracing: p.Provider(),
				Durability: writepath.DurabilityOf(p.Config.Durability), Replicas: p.Config.WaitReplicas, Version: p.Version(),
			}).Serve,
		}))
	}
	return p.Run(w.ctx, handler, parts...)
}
