package cache

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// SettingsKey is the hash with the settings of this Redis. In a namespace its name begins with the namespace.
	SettingsKey = "aw:meta"

	// Layout is the version of the format of keys and entries. Change it with every change that older processes would misread.
	Layout = "3"

	// PreviousLayout is the layout that package convert reads.
	PreviousLayout = "2"
	// ConvertingLayout is noted while a Redis is being converted.
	ConvertingLayout = "2>3"

	// DefaultShards is the number of shards of a new Redis, unless another is set.
	DefaultShards = 16

	// The fields of the hash.
	layoutName = "layout"
	shardsName = "AFTERWRITE_SHARDS"

	// birthName holds a random ID that is written together with the settings: an emptied Redis gets another.
	birthName = "birth"

	// witnessName holds the name of the first Cache that noticed that this Redis had another ID before.
	witnessName = "witness"
)

// SettingsError is the error of CheckMeta for a Redis that was written with other settings.
type SettingsError struct{ Name, Here, There string }

// Error states what differs and what to do.
func (e *SettingsError) Error() string {
	text := e.What() + ": " + e.Fix()
	if e.Name == shardsName {
		text += " (entries are stored by it, so it cannot be changed while there are any)"
	}
	return text
}

// NewLayoutError returns the error of CheckMeta for a Redis of another layout.
func NewLayoutError(there string) *SettingsError {
	return &SettingsError{Name: layoutName, Here: Layout, There: there}
}

// What states what differs.
func (e *SettingsError) What() string {
	switch {
	case e.Name != layoutName:
		return fmt.Sprintf("this Redis holds counters with %s=%s, but this process is set to %s", e.Name, e.There, e.Here)
	case e.There == ConvertingLayout:
		return fmt.Sprintf("this Redis is being converted from layout %s to layout %s, or that was interrupted", PreviousLayout, Layout)
	case e.older():
		return fmt.Sprintf("this Redis holds counters of layout %s, from an older version; this version uses layout %s", e.There, e.Here)
	default:
		return fmt.Sprintf("this Redis holds counters of layout %s, from a newer version; this version uses layout %s", e.There, e.Here)
	}
}

// Fix states what to do.
func (e *SettingsError) Fix() string {
	switch {
	case e.Name != layoutName:
		return fmt.Sprintf("set %s to %s", e.Name, e.There)
	case e.There == ConvertingLayout:
		return "run `afterwrite migrate`, which goes on with it, or waits for its end"
	case e.There == PreviousLayout:
		return "stop all processes of that version, and run `afterwrite migrate`: it converts the counters"
	case e.older():
		return "drain it with the program that wrote them (afterwrite worker --drain), stop everything, and empty this Redis database"
	default:
		return "use that version, or a later one"
	}
}

// older reports whether the layout in Redis is older than this program's.
func (e *SettingsError) older() bool {
	there, err := strconv.Atoi(e.There)
	here, _ := strconv.Atoi(e.Here)
	return err == nil && there < here
}

// ReadSettings returns the layout and the number of shards of this Redis; "" and 0 if it is new. prefix is Options.Prefix.
func ReadSettings(ctx context.Context, client redis.Cmdable, prefix string) (layout string, shards int, err error) {
	noted, err := client.HMGet(ctx, prefix+SettingsKey, layoutName, shardsName).Result()
	if err != nil {
		return "", 0, fmt.Errorf("read settings from redis: %w", err)
	}
	layout, _ = noted[0].(string)
	if text, ok := noted[1].(string); ok {
		if shards, err = strconv.Atoi(text); err != nil || shards < 1 || shards > counter.MaxShards {
			return "", 0, fmt.Errorf("read settings from redis: %s is %q in %s", shardsName, text, prefix+SettingsKey)
		}
	}
	return layout, shards, nil
}

// ChooseShards returns the number of shards that a process should use. It is shards if the operator has set it, or if this Redis is new;
// otherwise it is the number of this Redis.
func ChooseShards(ctx context.Context, client redis.Cmdable, prefix string, shards int, set bool) (int, error) {
	if set {
		return shards, nil
	}
	layout, there, err := ReadSettings(ctx, client, prefix)
	if err != nil || layout != Layout || there == 0 {
		return shards, err
	}
	return there, nil
}

// CheckMeta compares the settings that decide where entries are stored with those that this Redis was first used with, and notes them in
// a new Redis. It returns a *SettingsError if they differ.
func (c *Cache) CheckMeta(ctx context.Context) error {
	_, err := c.checkMeta(ctx)
	return err
}

// checkMeta is CheckMeta, and returns the ID of the data. The Cache remembers the first ID that it reads.
func (c *Cache) checkMeta(ctx context.Context) (birth string, err error) {
	// The layout first: with another one, the number of shards need not be the same.
	want := []SettingsError{{Name: layoutName, Here: Layout}, {Name: shardsName, Here: strconv.Itoa(c.shards)}}
	for _, s := range want {
		if s.There, err = c.note(ctx, s.Name, s.Here); err != nil {
			return "", err
		}
		if s.There != s.Here {
			return "", &s
		}
	}
	if birth, err = c.note(ctx, birthName, rand.Text()); err != nil {
		return "", err
	}
	c.birth.CompareAndSwap(nil, &birth)
	return birth, nil
}

// Emptied is CheckMeta, and reports whether this Redis has lost all its data since this Cache first checked it, or since Emptied last
// returned true. It returns true in only one of the processes that notice the loss. On a cluster it notices only the loss of the master
// that holds aw:meta.
func (c *Cache) Emptied(ctx context.Context) (bool, error) {
	birth, err := c.checkMeta(ctx)
	if err != nil {
		return false, err
	}
	known := c.birth.Load()
	if birth == *known {
		return false, nil
	}
	witness, err := c.note(ctx, witnessName, c.name)
	if err != nil {
		return false, err // the next call notices it again
	}
	return c.birth.CompareAndSwap(known, &birth) && witness == c.name, nil
}

// note stores value under name unless there is one, and returns the stored value.
func (c *Cache) note(ctx context.Context, name, value string) (string, error) {
	if err := c.client.HSetNX(ctx, c.prefix+SettingsKey, name, value).Err(); err != nil {
		return "", fmt.Errorf("note settings in redis: %w", err)
	}
	noted, err := c.client.HGet(ctx, c.prefix+SettingsKey, name).Result()
	if err != nil {
		return "", fmt.Errorf("read settings from redis: %w", err)
	}
	return noted, nil
}
