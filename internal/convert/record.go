package convert

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

var (
	//go:embed record.lua
	recordSource string
	recordScript = cache.NewScript(recordSource)
)

// moveRecords converts up to pageSize records of one pair of shards, and returns how many it changed.
func (c *converter) moveRecords(ctx context.Context, p pair, records []name) (changed int, err error) {
	if err := c.renew(ctx); err != nil {
		return 0, err
	}
	pipe := c.Redis.Pipeline()
	texts, ttls := make([]*redis.StringCmd, len(records)), make([]*redis.DurationCmd, len(records))
	for i, r := range records {
		texts[i], ttls[i] = pipe.Get(ctx, r.String()), pipe.PTTL(ctx, r.String())
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return 0, fmt.Errorf("read %d records of shard %s: %w", len(records), p.from, err)
	}
	var old, moved []string
	var args []any
	for i, r := range records {
		text, err := texts[i].Result()
		if err != nil {
			continue // it has expired, or is not a string
		}
		becomes, ttl := record3(text), int64(0)
		if becomes == text && p.from == p.to {
			continue
		}
		if left := ttls[i].Val(); left >= 0 {
			ttl = max(1, left.Milliseconds())
		}
		old = append(old, r.String())
		r.shard = p.to
		moved = append(moved, r.String())
		args = append(args, text, becomes, ttl)
	}
	if len(old) == 0 {
		return 0, nil
	}
	if err := c.sendRecords(ctx, p, old, moved, args); err != nil {
		return 0, fmt.Errorf("convert %d records of shard %s: %w", len(old), p.from, err)
	}
	return len(old), nil
}

func (c *converter) sendRecords(ctx context.Context, p pair, old, moved []string, args []any) error {
	keys := append([]string{conversionKey(p.to), deadKey(p.to)}, moved...)
	if !c.cluster || p.from == p.to {
		return recordScript.Run(ctx, c.Redis, append(keys, old...), append([]any{"move", c.token}, args...)...).Err()
	}
	if err := recordScript.Run(ctx, c.Redis, keys, append([]any{"put", c.token}, args...)...).Err(); err != nil {
		return err
	}
	return c.Redis.Unlink(ctx, old...).Err()
}
