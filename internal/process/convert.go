package process

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/convert"
)

// settle returns when Redis answers, has the layout of this version, and passes the checks. It converts a Redis of the previous version,
// or waits until a worker has converted it.
func (p *Process) settle(ctx context.Context) error {
	for {
		if err := p.AwaitRedis(ctx, Patience); err != nil {
			return err
		}
		err := p.upgrade(ctx)
		if err == nil {
			err = p.ChooseShards(ctx)
		}
		if err == nil {
			checks := p.Checks()
			checks.RequireMappings, checks.RequireDurability = p.UsesMappings, p.Durable
			err = checks.atStart(ctx, p.Log)
		}
		if err == nil || p.Cache.Ping(ctx) == nil || ctx.Err() != nil {
			return err
		}
		p.Log.Warn("redis does not answer any more", "error", err)
	}
}

// upgrade returns when Redis needs no conversion. Meanwhile the process is healthy, but not ready.
func (p *Process) upgrade(ctx context.Context) error {
	if p.Config.Namespace != "" {
		return nil // see Convert
	}
	needed, err := convert.Needed(ctx, p.Redis)
	if err != nil || !needed {
		return err
	}
	stop, err := p.serveNotReady(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if !p.Converts {
		return convert.Await(ctx, p.Redis, p.Log)
	}
	_, err = p.Convert(ctx, LogProgress(p.Log))
	return err
}

// Convert converts a Redis of the previous version. That version had no namespaces, so with one there is nothing to do.
func (s *Servers) Convert(ctx context.Context, report func(convert.Progress)) (convert.Progress, error) {
	if s.Config.Namespace != "" {
		return convert.Progress{}, nil
	}
	return convert.Run(ctx, convert.Options{Redis: s.Redis, Shards: s.Config.Shards, Logger: s.Log, Report: report})
}

// LogProgress returns a convert.Options.Report that logs.
func LogProgress(log *slog.Logger) func(convert.Progress) {
	return func(p convert.Progress) {
		message := "converting this Redis"
		if p.Done {
			message = "this Redis has layout " + cache.Layout + " now"
		}
		log.Info(message, "entries", p.Entries, "idempotency_records", p.Records, "keys", p.Keys, "shards", p.Shards)
	}
}

// serveNotReady serves /readyz on the process's address as not ready, until the returned function is called.
func (p *Process) serveNotReady(ctx context.Context) (stop func(), err error) {
	listener, err := p.Listen(p.Config)
	if err != nil {
		return nil, err
	}
	notYet := func(context.Context) error {
		return errors.New("this Redis is being converted to layout " + cache.Layout)
	}
	health := Health{
		Registry: p.Registry, Logger: p.Log, Version: p.version,
		Dependencies: []Dependency{{Name: "redis", Required: true, Ping: notYet}},
	}
	handler := health.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "starting: the counters are being upgraded", http.StatusServiceUnavailable)
	}))
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := DefaultLimits().ServeTLS(ctx, listener, p.own.config(), handler, p.Log); err != nil {
			p.Log.Warn("the address is not served while redis is being converted", "error", err)
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}, nil
}
