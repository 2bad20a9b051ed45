package cache

import (
	"context"
	"fmt"
	"strconv"
)

const (
	metaKey = "aw:meta"

	// layout is the version of the layout of keys and entries. Change it with every change that older processes would
	// misread.
	layout = "2"

	layoutName = "layout"
)

// SettingsError is returned by CheckMeta when this Redis was written with other settings.
type SettingsError struct{ Name, Here, There string }

// Error says what differs and what to do.
func (e *SettingsError) Error() string {
	if e.Name == layoutName {
		return fmt.Sprintf("this Redis holds entries of layout %s, and this program's is %s: drain it with the program that wrote "+
			"them (afterwrite worker --drain), stop everything, and empty this Redis database", e.There, e.Here)
	}
	return fmt.Sprintf("this Redis holds counters with %s=%s, but this process is set to %s: set it to %s "+
		"(entries are stored by it, so it cannot be changed while there are any)", e.Name, e.There, e.Here, e.There)
}

// CheckMeta compares the settings that decide where entries are with those that this Redis was first used with, and
// notes them if it is new. An *SettingsError says what differs.
func (c *Cache) CheckMeta(ctx context.Context) error {
	want := map[string]string{"AFTERWRITE_SHARDS": strconv.Itoa(c.shards), layoutName: layout}
	for name, here := range want {
		if err := c.client.HSetNX(ctx, metaKey, name, here).Err(); err != nil {
			return fmt.Errorf("note settings in redis: %w", err)
		}
		there, err := c.client.HGet(ctx, metaKey, name).Result()
		if err != nil {
			return fmt.Errorf("read settings from redis: %w", err)
		}
		if there != here {
			return &SettingsError{Name: name, Here: here, There: there}
		}
	}
	return nil
}
