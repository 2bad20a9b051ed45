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

// Options are what a conversion needs.
type Options struct {
	// Redis must not retry (see cache.Connect). Required.
	Redis redis.UniversalClient
	// Shards is the number of shards that the counters are moved to; 0 takes cache.DefaultShards. A conversion that was
	// interrupted keeps its own.
	Shards int
	// Logger is told what is waited for. Required.
	Logger *slog.Logger
	// Report is called now and then while it converts. Nil: nobody is told.
	Report func(Progress)
}

// Progress is how far a conversion is.
type Progress struct {
	Entries int64 // converted so far
	Records int64 // likewise, of idempotency
	Keys    int64 // in Redis when it began, of any kind
	Shards  int   // that they are moved to
	Done    bool
}

const (
	// pageSize bounds the keys of one call of convert.lua: Redis does nothing else meanwhile, and takes 6 to 12 µs for each.
	pageSize = 100
	// scanSize is about how many keys one SCAN visits.
	scanSize = 500
	// maxPasses bounds the passes over all keys. Two are enough, since the second finds nothing to do, unless somebody writes.
	maxPasses = 10
	// reportEvery is the time between two reports.
	reportEvery = time.Second
)

// converter is one run.
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

// Needed reports whether this Redis has to be converted before it can be used: Run does it, Await waits for it.
func Needed(ctx context.Context, client redis.UniversalClient) (bool, error) {
	s, err := read(ctx, client)
	return s.layout == cache.PreviousLayout || s.layout == cache.ConvertingLayout, err
}

// Run converts a Redis of layout 2, and returns what it did. It does nothing to one of another layout; CheckMeta of package
// cache says what is wrong with that. If another process is converting, it waits for that one, and goes on in its place if it
// dies. Run again after an error, it goes on where it ended.
//
// It returns a *RunningError if processes of the old version run, and do not end within 10 s. Each call to Redis takes Redis 2
// ms at most; 100,000 keys take some seconds.
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

// take returns when the lease is ours, or there is nothing to convert: then somebody else, or nobody, is its holder.
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

// begin makes sure that nobody uses this Redis, and notes that it is being converted.
func (c *converter) begin(ctx context.Context, s status) error {
	if s.from < 1 || s.from > counter.MaxShards {
		return fmt.Errorf("%s does not say how many shards this Redis has", cache.SettingsKey)
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
		c.Logger.Warn("a conversion that was interrupted goes on with its own number of shards", "shards", s.to, "set", c.Shards)
	}
	return nil
}

// convert does all that is left to do.
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

// size is how many keys there are.
func (c *converter) size(ctx context.Context) (keys int64, err error) {
	err = c.eachNode(ctx, func(node redis.Cmdable) error {
		n, err := node.DBSize(ctx).Result()
		keys += n
		return err
	})
	return keys, err
}

// prepare gives the new shards what convert.lua asks for.
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

// finish removes what layout 2 leaves, and says that the conversion is over.
func (c *converter) finish(ctx context.Context) error {
	for i := range c.from {
		shard := counter.Shard(i)
		if err := c.renew(ctx); err != nil {
			return err
		}
		if err := c.Redis.Unlink(ctx, genKey(shard), drainKey(shard)).Err(); err != nil {
			return fmt.Errorf("remove what is left of shard %s: %w", shard, err)
		}
	}
	// From here on nobody who lost the lease can write.
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

// report tells of the progress, if it is time to.
func (c *converter) report() {
	if c.Report == nil || (!c.progress.Done && time.Since(c.reported) < reportEvery) {
		return
	}
	c.reported = time.Now()
	c.Report(c.progress)
}
