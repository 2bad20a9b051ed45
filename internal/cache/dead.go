package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Dead is what is known of a key that Postgres refused for good. It stays dirty and goes on taking writes.
type Dead struct {
	Reason   string    `json:"reason"` // what Postgres said
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
}

// Park puts a dirty key aside for the given time: no drain and no flush looks at it before. Its retry does.
func (c *Cache) Park(ctx context.Context, key counter.Key, until time.Duration) error {
	return c.park(ctx, key, ms(until), "")
}

// Bury makes a dirty key a dead letter.
func (c *Cache) Bury(ctx context.Context, key counter.Key, dead Dead) error {
	note, err := json.Marshal(dead)
	if err != nil {
		return fmt.Errorf("bury %q: %w", key, err)
	}
	return c.park(ctx, key, "dead", string(note))
}

func (c *Cache) park(ctx context.Context, key counter.Key, until, note string) error {
	err := parkScript.Run(ctx, c.client, []string{dirtyKey(c.Shard(key))}, string(key), until, note).Err()
	if err != nil {
		return fmt.Errorf("park %q: %w", key, err)
	}
	return nil
}

// DeadLetter returns what is known of key if it is dead.
func (c *Cache) DeadLetter(ctx context.Context, key counter.Key) (dead Dead, found bool, err error) {
	note, err := c.client.HGet(ctx, deadKey(c.Shard(key)), string(key)).Result()
	if errors.Is(err, redis.Nil) {
		return Dead{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(note), &dead)
	}
	if err != nil {
		return Dead{}, false, fmt.Errorf("dead letter %q: %w", key, err)
	}
	return dead, true, nil
}
