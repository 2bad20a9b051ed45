package pulse

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	// beatTimeout bounds the wait for Redis. The next beat is late by as much.
	beatTimeout = 2 * time.Second

	// probeTimeout bounds the wait for a Postgres that is asked only to learn how it is.
	probeTimeout = time.Second

	// quiet is how old what a process knows of Postgres may be before it asks: else nobody would notice an outage in which
	// nothing is written.
	quiet = 5 * time.Second

	// hashTTL is how long the hash outlives the last beat of all.
	hashTTL = 24 * time.Hour
)

var (
	//go:embed beat.lua
	beatSource string

	beatScript = redis.NewScript(beatSource)
)

// Postgres is what a Beater asks about Postgres; a *store.Store is one.
type Postgres interface {
	Up() bool
	Quiet() time.Duration // since the last call that said so
	Ping(ctx context.Context) error
}

// Options are what a Beater says, and where. All but Postgres are required.
type Options struct {
	Redis   redis.UniversalClient
	Role    string
	Version string
	Address string
	// Counted holds the process's own metrics. It is gathered each second, so nothing in it may ask other servers.
	Counted  prometheus.Gatherer
	Postgres Postgres // nil: the process uses none
	Settings Settings
	Logger   *slog.Logger
}

// Beater says once a second that this process runs, and every other second while there is nothing else to say.
type Beater struct {
	options  Options
	pulse    Pulse
	started  time.Time
	failing  bool
	repeated bool // the last beat had the counts and the state of Postgres of the one before it
	rested   bool // the last beat was left out

	postgresSince time.Time
	swept         time.Time // zero: never
}

// NewBeater returns a Beater that has not begun.
func NewBeater(options Options) *Beater {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	now := time.Now()
	return &Beater{
		options: options, started: now, postgresSince: now,
		pulse: Pulse{
			ID: rand.Text(), Role: options.Role, Host: host, PID: os.Getpid(),
			Version: options.Version, Address: options.Address, Settings: options.Settings,
		},
	}
}

// Run beats until ctx is done, and then takes the process's entry away.
func (b *Beater) Run(ctx context.Context) {
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	for {
		b.report(ctx, b.beat(ctx))
		select {
		case <-ctx.Done():
			b.leave(ctx)
			return
		case <-ticker.C:
		}
	}
}

// beat is one of them, or none if it may rest.
func (b *Beater) beat(ctx context.Context) error {
	postgres := b.pulse.Postgres
	b.lookAtPostgres(ctx)
	counts, err := count(b.options.Counted)
	if err != nil {
		return err
	}
	if b.rest(postgres == b.pulse.Postgres && reflect.DeepEqual(counts, b.pulse.Counts)) {
		return nil
	}
	return b.say(ctx, counts)
}

// rest reports whether a beat may be left out. same says that it would repeat the last one. The one that says so first is not left
// out, since readers take rates from a beat to its next, and only it tells them that they are 0. Of two in a row one is made: a
// process that is not heard of for aliveFor is taken for gone, and another beat may be late or lost.
func (b *Beater) rest(same bool) bool {
	b.rested = same && b.repeated && !b.rested && !b.failing
	b.repeated = same
	return b.rested
}

// say makes a beat.
func (b *Beater) say(ctx context.Context, counts Counts) error {
	now := time.Now()
	if counts.Sweeps > b.pulse.Counts.Sweeps {
		b.swept = now
	}
	b.pulse.SweptAgo = -1
	if !b.swept.IsZero() {
		b.pulse.SweptAgo = now.Sub(b.swept).Milliseconds()
	}
	b.pulse.Counts = counts
	b.pulse.Uptime = now.Sub(b.started).Milliseconds()
	said, err := json.Marshal(b.pulse)
	if err != nil {
		return fmt.Errorf("encode a pulse: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	noted, err := beatScript.Run(ctx, b.options.Redis, []string{Key},
		b.pulse.ID, said, hashTTL.Milliseconds(), maxProcesses).Int()
	if err != nil {
		return fmt.Errorf("note a pulse: %w", err)
	}
	if noted == 0 {
		return errors.New("there are too many processes for the dashboard to show this one")
	}
	return nil
}

// lookAtPostgres notes what the process knows of Postgres. Where it is away, or has not been heard of for a while, it is asked:
// in a process that has nothing to ask it, nobody would find out.
func (b *Beater) lookAtPostgres(ctx context.Context) {
	if b.options.Postgres == nil {
		return
	}
	if !b.options.Postgres.Up() || b.options.Postgres.Quiet() > quiet {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		_ = b.options.Postgres.Ping(ctx) // the breaker keeps what came of it, and logs it
		cancel()
	}
	state := PostgresDown
	if b.options.Postgres.Up() {
		state = PostgresUp
	}
	now := time.Now()
	if state != b.pulse.Postgres {
		b.postgresSince = now
	}
	b.pulse.Postgres = state
	b.pulse.PostgresFor = now.Sub(b.postgresSince).Milliseconds()
}

// report logs when beats begin to fail, and when they get through again.
func (b *Beater) report(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !b.failing:
		b.options.Logger.Warn("the dashboard is not told about this process; trying again each second", "error", err)
	case err == nil && b.failing:
		b.options.Logger.Info("the dashboard is told about this process again")
	}
	b.failing = err != nil
}

func (b *Beater) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatTimeout)
	defer cancel()
	_ = b.options.Redis.HDel(ctx, Key, b.pulse.ID).Err() // without it, the process is shown as gone for a while
}
