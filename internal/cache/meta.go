package cache

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
)

const (
	settingsKey = "aw:meta"

	// layout is the version of the layout of keys and entries. Change it with every change that older processes would
	// misread.
	layout = "3"

	layoutName = "layout"

	// birthName is of a random text that is noted when the settings are: a Redis that was emptied gets another.
	birthName = "birth"

	// witnessName is of the Cache that was the first to notice that this Redis has succeeded one with another birth.
	witnessName = "witness"
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
	_, err := c.checkMeta(ctx)
	return err
}

// checkMeta is CheckMeta, and returns the birth of this Redis. The first that it finds is the one this Cache knows.
func (c *Cache) checkMeta(ctx context.Context) (birth string, err error) {
	want := map[string]string{"AFTERWRITE_SHARDS": strconv.Itoa(c.shards), layoutName: layout}
	for name, here := range want {
		there, err := c.note(ctx, name, here)
		if err != nil {
			return "", err
		}
		if there != here {
			return "", &SettingsError{Name: name, Here: here, There: there}
		}
	}
	if birth, err = c.note(ctx, birthName, rand.Text()); err != nil {
		return "", err
	}
	c.birth.CompareAndSwap(nil, &birth)
	return birth, nil
}

// Emptied is CheckMeta, and reports whether this Redis has lost everything since this Cache first looked, or since Emptied last said
// so. Of all that notice, in any process, one is told. Who has never looked before cannot notice. Of a cluster it sees the master that
// has aw:meta.
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

// note returns what is noted under name, and notes value before where that is nothing.
func (c *Cache) note(ctx context.Context, name, value string) (string, error) {
	if err := c.client.HSetNX(ctx, settingsKey, name, value).Err(); err != nil {
		return "", fmt.Errorf("note settings in redis: %w", err)
	}
	noted, err := c.client.HGet(ctx, settingsKey, name).Result()
	if err != nil {
		return "", fmt.Errorf("read settings from redis: %w", err)
	}
	return noted, nil
}
