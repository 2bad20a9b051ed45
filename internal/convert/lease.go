package convert

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

var (
	//go:embed lease.lua
	leaseSource string
	leaseScript = cache.NewScript(leaseSource)
)

const (
	// leaseKey is in the slot of cache.SettingsKey, whose name is its hash tag.
	leaseKey = "{" + cache.SettingsKey + "}:convert"

	// leaseTime is how long others wait after a converter died. It is far longer than a call to Redis.
	leaseTime = 15 * time.Second
	// renewAfter is the age at which a lease is renewed.
	renewAfter = leaseTime / 3
)

// ErrLeaseLost is returned by Run when another process has taken over the conversion.
var ErrLeaseLost = errors.New("another process has taken over the conversion of this Redis")

// status is the state of a Redis and of its conversion.
type status struct {
	layout   string // "": a new Redis
	holder   string // the process that has the lease; "": none
	from, to int    // numbers of shards; 0: unknown
	token    string // of the conversion
}

// lease runs a step of lease.lua.
func (c *converter) lease(ctx context.Context, what string, args ...any) (status, error) {
	args = append([]any{what, c.owner, leaseTime.Milliseconds()}, args...)
	reply, err := leaseScript.Run(ctx, c.Redis, []string{cache.SettingsKey, leaseKey}, args...).StringSlice()
	if err == nil && len(reply) != 5 {
		err = fmt.Errorf("a reply of %d", len(reply))
	}
	if err != nil {
		return status{}, fmt.Errorf("%s the lease of the conversion: %w", what, err)
	}
	s := status{layout: reply[0], holder: reply[1], token: reply[4]}
	s.from, _ = strconv.Atoi(reply[2]) // "" is 0
	s.to, _ = strconv.Atoi(reply[3])
	c.renewed = time.Now()
	return s, nil
}

// hold runs a step for which this process must have the lease.
func (c *converter) hold(ctx context.Context, what string, args ...any) (status, error) {
	s, err := c.lease(ctx, what, args...)
	if err == nil && s.holder != c.owner {
		err = ErrLeaseLost
	}
	return s, err
}

// renew renews the lease if it is older than renewAfter.
func (c *converter) renew(ctx context.Context) error {
	if time.Since(c.renewed) < renewAfter {
		return nil
	}
	_, err := c.hold(ctx, "renew")
	return err
}

// release releases the lease, also if ctx is done.
func (c *converter) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := c.lease(ctx, "release"); err != nil {
		c.Logger.Warn("cannot release the lease of the conversion: it expires later", "after", leaseTime, "error", err)
	}
}

// read returns the layout and the holder of the lease.
func read(ctx context.Context, client redis.UniversalClient) (status, error) {
	pipe := client.Pipeline()
	noted := pipe.HMGet(ctx, cache.SettingsKey, "layout")
	holder := pipe.Get(ctx, leaseKey)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return status{}, fmt.Errorf("read the layout of redis: %w", err)
	}
	layout, _ := noted.Val()[0].(string)
	return status{layout: layout, holder: holder.Val()}, nil
}
