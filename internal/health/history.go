package health

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

const (
	// historyKey is the list of the last samples, newest first.
	historyKey = "aw:history"

	// Kept is the number of samples in the history: 15 minutes, and 100 kB at about 110 bytes each.
	Kept = 900
)

var (
	//go:embed record.lua
	recordSource string

	recordScript = redis.NewScript(recordSource)
)

// record adds s to the history, unless the history has a sample of the same second. It reports whether s was added.
func record(ctx context.Context, client redis.UniversalClient, prefix string, s Sample) (bool, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("encode a sample: %w", err)
	}
	added, err := recordScript.Run(ctx, client, []string{prefix + historyKey}, s.At/1000, text, Kept).Int()
	if err != nil {
		return false, fmt.Errorf("record a sample: %w", err)
	}
	return added == 1, nil
}

// readHistory returns the samples of the last 15 minutes before now (ms by Redis's clock), oldest first. It skips samples that it cannot
// decode.
func readHistory(ctx context.Context, client redis.UniversalClient, prefix string, now int64) ([]Sample, error) {
	lines, err := client.LRange(ctx, prefix+historyKey, 0, Kept-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	samples := make([]Sample, 0, len(lines))
	for _, line := range lines {
		_, text, _ := strings.Cut(line, " ")
		var s Sample
		if json.Unmarshal([]byte(text), &s) == nil && s.At <= now && s.At > now-Kept*1000 {
			samples = append(samples, s)
		}
	}
	slices.Reverse(samples)
	return samples, nil
}

// remember appends s. It drops samples that are older than 15 minutes, and samples later than s, which exist if the clock was set back.
// It never overwrites samples, since earlier Snapshots share them.
func remember(history []Sample, s Sample) []Sample {
	for len(history) > 0 && history[len(history)-1].At >= s.At {
		history = history[: len(history)-1 : len(history)-1] // so that the next append copies
	}
	old := slices.IndexFunc(history, func(h Sample) bool { return h.At > s.At-Kept*1000 })
	if old < 0 {
		old = len(history)
	}
	history = append(history[old:], s)
	return history[max(0, len(history)-Kept):]
}
