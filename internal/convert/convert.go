package convert

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

var (
	//go:embed prepare.lua
	prepareSource string
	prepareScript = cache.NewScript(prepareSource)
)

// Options configure a conversion.
type Options struct {
	// Redis must not retry (see cache.Connect). Required.
	Redis redis.UniversalClient
	// Shards is the new number of shards; 0 means cache.DefaultShards. An interrupted conversion keeps its number.
	Shards int
	// Logger logs waits. Required.
	Logger *slog.Logger
	// Report, if not nil, is called about once a second and at the end.
	Report func(Progress)
}

// Progress is the progress of a conversion.
type Progress struct {
	Entries int64 // converted entries
	Records int64 // converted idempotency records
	Keys    int64 // all keys in Redis at the start
	Shards  int   // the new number of shards
	Done    bool
}

const (
	// pageSize bounds the keys of one call of convert.lua, which blocks Redis for 6 to 12 µs per key.
	pageSize = 100
	// scanSize is the approximate number of keys of one SCAN.
	scanSize = 500
	// maxPasses bounds the passes over all keys. The second pass finds nothing to do, unless an old process still writes.
	maxPasses = 10
	// reportEvery is the time between two reports.
	reportEvery = time.Second
)

// converter is one call of Run.
type converter struct {
	Options

	cluster  bool
	owner    string // of the lease
	token    string // of the conversion
	from, to int    // numbers of shards
	open     []string
	renewed  time.Time // the lease
	reported time.Time
	progress Progress
}

// Needed reports whether this Redis must be converted before use, with Run or Await.
func Needed(ctx context.Context, client redis.UniversalClient) (bool, error) {
	s, err := read(ctx, client)
	return s.layout == cache.PreviousLayout || s.layout == cache.ConvertingLayout, err
}

// Run converts a Redis of layout 2. It does nothing if the layout is another; CheckMeta of package cache returns the error for that. If
// another process is converting, Run waits, and takes over if that process dies. After an error, the next Run continues.
//
// It returns a *RunningError if processes of the old version do not end within 10 s. Each call blocks Redis for at most 2 ms; 100,000
// keys take some seconds.
func Run(ctx context.Context, options Options) (Progress, error) {
	c := newConverter(options)
	s, err := c.take(ctx)
	if err != nil || s.holder != c.owner {
		return Progress{}, err
	}
	defer c.release(ctx)
	if err := c.begin(ctx, s); err != nil {
		return Progress{}, err
	}
	if err := c.convert(ctx); err != nil {
		return c.progress, fmt.Errorf("convert redis to layout %s: %w (nothing is lost: run it again)", cache.Layout, err)
	}
	c.progress.Done = true
	c.report()
	return c.progress, nil
}

func newConverter(options Options) *converter {
	_, cluster := options.Redis.(*redis.ClusterClient)
	options.Shards = cmp.Or(options.Shards, cache.DefaultShards)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return &converter{
		Options: options, cluster: cluster, owner: fmt.Sprintf("pid %d on %s (%s)", os.Getpid(), host, rand.Text()[:8]),
	}
}

// take waits until this process has the lease, or until there is nothing to convert. The status shows which.
func (c *converter) take(ctx context.Context) (status, error) {
	w := waiting{log: c.Logger}
	for {
		s, err := c.lease(ctx, "take")
		if err != nil {
			return s, err
		}
		converts := s.layout == cache.PreviousLayout || s.layout == cache.ConvertingLayout
		if s.holder == c.owner || !converts {
			w.over()
			return s, nil
		}
		if err := w.pause(ctx, s); err != nil {
			return s, err
		}
	}
}

// begin waits until no process of the old version uses this Redis, and sets the layout to "2>3".
func (c *converter) begin(ctx context.Context, s status) error {
	if s.from < 1 || s.from > counter.MaxShards {
		return fmt.Errorf("%s has no valid number of shards", cache.SettingsKey)
	}
	if err := c.awaitEnd(ctx); err != nil {
		return err
	}
	marked := s.layout == cache.PreviousLayout
	s, err := c.hold(ctx, "mark", c.Shards, rand.Text())
	if err == nil && marked {
		err = c.checkAgain(ctx)
	}
	if err != nil {
		return err
	}
	c.from, c.to, c.token = s.from, s.to, s.token
	c.progress.Shards = s.to
	if s.to != c.Shards {
		c.Logger.Warn("an interrupted conversion continues with its own number of shards", "shards", s.to, "set", c.Shards)
	}
	return nil
}

// convert converts all keys that are left.
func (c *converter) convert(ctx context.Context) (err error) {
	if c.progress.Keys, err = c.size(ctx); err != nil {
		return err
	}
	c.reported = time.Now()
	c.Logger.Info("converting this Redis to layout "+cache.Layout, "keys", c.progress.Keys, "shards", c.from, "to_shards", c.to)
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for range maxPasses {
		changed, err := c.pass(ctx)
		if err != nil {
			return err
		}
		if changed == 0 {
			return c.finish(ctx)
		}
	}
	return errStillWriting
}

var errStillWriting = errors.New("a process of the old version is still writing: stop it")

// size returns the number of keys in Redis.
func (c *converter) size(ctx context.Context) (keys int64, err error) {
	err = c.eachNode(ctx, func(node redis.Cmdable) error {
		n, err := node.DBSize(ctx).Result()
		keys += n
		return err
	})
	return keys, err
}

// prepare gives each new shard an open epoch and the token of the conversion.
func (c *converter) prepare(ctx context.Context) (err error) {
	c.open = make([]string, c.to)
	for i := range c.open {
		shard := counter.Shard(i)
		keys := []string{metaKey(shard), deadKey(shard), conversionKey(shard)}
		if c.open[i], err = prepareScript.Run(ctx, c.Redis, keys, c.token).Text(); err != nil {
			return fmt.Errorf("prepare shard %s: %w", shard, err)
		}
	}
	return nil
}

// finish removes the remaining keys of layout 2, and sets the layout to 3.
func (c *converter) finish(ctx context.Context) error {
	for i := range c.from {
		shard := counter.Shard(i)
		if err := c.renew(ctx); err != nil {
			return err
		}
		if err := c.Redis.Unlink(ctx, genKey(shard), drainKey(shard)).Err(); err != nil {
			return fmt.Errorf("remove the old keys of shard %s: %w", shard, err)
		}
	}
	// Without the token, a converter that lost the lease cannot write.
	for i := range c.to {
		if err := c.Redis.Unlink(ctx, conversionKey(counter.Shard(i))).Err(); err != nil {
			return fmt.Errorf("end the conversion of shard %s: %w", counter.Shard(i), err)
		}
	}
	s, err := c.lease(ctx, "finish")
	if err == nil && s.layout != cache.Layout {
		err = ErrLeaseLost
	}
	return err
}

// report calls Report, at most once in reportEvery and at the end.
func (c *converter) report() {
	if c.Report == nil || (!c.progress.Done && time.Since(c.reported) < reportEvery) {
		return
	}
	c.reported = time.Now()
	c.Report(c.progress)
}
