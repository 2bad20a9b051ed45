package command

import (
	"errors"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/doctor"
	"github.com/afterwrite/afterwrite/internal/store"
)

type doctorCommand struct {
	JSON bool `help:"Print the findings as JSON." name:"json"`
}

// Run implements the command.
func (d doctorCommand) Run(w *world) error {
	c, log, err := settings(w, "doctor")
	if err != nil {
		return err
	}
	if err := errors.Join(c.RequireRedis(), c.RequirePostgres()); err != nil {
		return err
	}
	redis, err := cache.Connect(c.RedisURL, 2)
	if err != nil {
		return err
	}
	defer closeQuietly(redis)
	postgres, err := store.Open(c.DatabaseURL, store.Options{Logger: log, MaxConns: 2})
	if err != nil {
		return err
	}
	defer closeQuietly(postgres)

	// The checks say what is wrong with a Redis that does not tell.
	if shards, err := cache.ChooseShards(w.ctx, redis, c.Shards, c.ShardsSet); err == nil {
		c.Shards = shards
	}
	settled := cache.New(redis, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL})
	findings := doctor.Run(w.ctx, doctor.Options{
		Redis: redis, Ping: settled.Ping, Layout: settled.CheckMeta, Postgres: postgres,
	})
	write := doctor.Print
	if d.JSON {
		write = doctor.PrintJSON
	}
	if err := write(w.stdout, findings); err != nil {
		return err
	}
	if doctor.Worst(findings) == doctor.Refused {
		return errors.New("something is refused: see above")
	}
	return nil
}
