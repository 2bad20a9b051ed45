package health

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

const (
	// heartbeatTimeout bounds the wait for Redis, which delays the next heartbeat.
	heartbeatTimeout = 2 * time.Second

	// probeTimeout bounds a ping of Postgres.
	probeTimeout = time.Second

	// probeAfter is the time without a call to Postgres after which the process pings it, so that an idle process notices an outage.
	probeAfter = 5 * time.Second

	// maxErrorRunes bounds the error of a mapping in a heartbeat.
	maxErrorRunes = 200

	// hashTTL is how long the hash outlives the last heartbeat.
	hashTTL = 24 * time.Hour
)

var (
	//go:embed heartbeat.lua
	heartbeatSource string

	heartbeatScript = redis.NewScript(heartbeatSource)
)

// Postgres reports the state of Postgres; *store.Store implements it.
type Postgres interface {
	Up() bool
	Quiet() time.Duration // time since the last call that showed whether Postgres is up
	Ping(ctx context.Context) error
}

// ReporterOptions configure a Reporter. All but Postgres and BrokenMappings are required.
type ReporterOptions struct {
	Redis   redis.UniversalClient
	Prefix  string // prefix of the Redis keys: see cache.Options
	Role    string
	Version string
	Address string
	// Counted gathers the process's metrics. It is called each second, so its collectors must not call other servers.
	Counted  prometheus.Gatherer
	Postgres Postgres // nil: the process does not use Postgres
	Settings Settings
	// BrokenMappings returns Heartbeat.BrokenMappings, with whole errors. It is called each second, and the Reporter may change its result.
	// Nil: none is broken.
	BrokenMappings func() map[string]string
	Logger         *slog.Logger
}

// Reporter sends a heartbeat of its process every second, or every other second while nothing changes.
type Reporter struct {
	options  ReporterOptions
	last     Heartbeat
	started  time.Time
	failing  bool
	repeated bool // the last heartbeat had the same counts and state of Postgres as the one before
	skipped  bool // the last heartbeat was skipped
	busiest  busiest

	postgresSince time.Time
	swept         time.Time // zero: never
}

// NewReporter returns a Reporter. It sends nothing before Run.
func NewReporter(options ReporterOptions) *Reporter {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	now := time.Now()
	return &Reporter{
		options: options, started: now, postgresSince: now,
		last: Heartbeat{
			ID: rand.Text(), Role: options.Role, Host: host, PID: os.Getpid(),
			Version: options.Version, Address: options.Address, Settings: options.Settings,
		},
	}
}

// Run sends heartbeats until ctx is done, then removes the process's heartbeat. If Redis does not answer, heartbeats are lost, and Run
// logs it once.
func (r *Reporter) Run(ctx context.Context) {
	ticker := time.NewTicker(HeartbeatEvery)
	defer ticker.Stop()
	for {
		r.log(ctx, r.beat(ctx))
		select {
		case <-ctx.Done():
			r.leave(ctx)
			return
		case <-ticker.C:
		}
	}
}

// beat sends a heartbeat, unless it may be skipped.
func (r *Reporter) beat(ctx context.Context) error {
	postgres := r.last.Postgres
	r.checkPostgres(ctx)
	counts, err := count(r.options.Counted)
	if err != nil {
		return err
	}
	counts.Requests = r.busiest.choose(counts.Requests)
	broken := r.broken()
	same := postgres == r.last.Postgres && maps.Equal(broken, r.last.BrokenMappings) && reflect.DeepEqual(counts, r.last.Counts)
	r.last.BrokenMappings = broken
	if r.skip(same) {
		return nil
	}
	return r.send(ctx, counts)
}

// broken returns the broken mappings with short errors.
func (r *Reporter) broken() map[string]string {
	if r.options.BrokenMappings == nil {
		return nil
	}
	all := r.options.BrokenMappings()
	for name, text := range all {
		if cut := []rune(text); len(cut) > maxErrorRunes {
			all[name] = string(cut[:maxErrorRunes]) + "…"
		}
	}
	return all
}

// skip reports whether a heartbeat may be skipped. same means that it would repeat the last one. The first repetition is sent, because
// readers compute rates between two heartbeats, and it brings them to 0. After that, every other repetition is sent, because a process
// without a heartbeat for aliveFor counts as gone.
func (r *Reporter) skip(same bool) bool {
	r.skipped = same && r.repeated && !r.skipped && !r.failing
	r.repeated = same
	return r.skipped
}

func (r *Reporter) send(ctx context.Context, counts Counts) error {
	now := time.Now()
	if counts.Sweeps > r.last.Counts.Sweeps {
		r.swept = now
	}
	r.last.SweptAgo = -1
	if !r.swept.IsZero() {
		r.last.SweptAgo = now.Sub(r.swept).Milliseconds()
	}
	r.last.Counts = counts
	r.last.Uptime = now.Sub(r.started).Milliseconds()
	body, err := json.Marshal(r.last)
	if err != nil {
		return fmt.Errorf("encode a heartbeat: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	stored, err := heartbeatScript.Run(ctx, r.options.Redis, []string{r.options.Prefix + HeartbeatKey},
		r.last.ID, body, hashTTL.Milliseconds(), maxProcesses).Int()
	if err != nil {
		return fmt.Errorf("send a heartbeat: %w", err)
	}
	if stored == 0 {
		return errors.New("the dashboard cannot show this process: there are too many")
	}
	return nil
}

// checkPostgres updates the state of Postgres. It pings Postgres if it was down, or was not called for probeAfter.
func (r *Reporter) checkPostgres(ctx context.Context) {
	if r.options.Postgres == nil {
		return
	}
	if !r.options.Postgres.Up() || r.options.Postgres.Quiet() > probeAfter {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		_ = r.options.Postgres.Ping(ctx) // the circuit breaker stores and logs the result
		cancel()
	}
	state := PostgresDown
	if r.options.Postgres.Up() {
		state = PostgresUp
	}
	now := time.Now()
	if state != r.last.Postgres {
		r.postgresSince = now
	}
	r.last.Postgres = state
	r.last.PostgresFor = now.Sub(r.postgresSince).Milliseconds()
}

// log reports the first heartbeat that fails, and the first that succeeds again.
func (r *Reporter) log(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !r.failing:
		r.options.Logger.Warn("heartbeats cannot be sent, so the dashboard does not show this process; trying again each second",
			"error", err)
	case err == nil && r.failing:
		r.options.Logger.Info("heartbeats are sent again")
	}
	r.failing = err != nil
}

func (r *Reporter) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatTimeout)
	defer cancel()
	_ = r.options.Redis.HDel(ctx, r.options.Prefix+HeartbeatKey, r.last.ID).Err() // after an error the process is shown as gone for a while
}
