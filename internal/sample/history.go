package sample

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
	// historyKey is the list of the last samples, the newest first.
	historyKey = "aw:history"

	// Kept is how many samples there are: 15 minutes. At some 110 bytes each they are 100 kB.
	Kept = 900
)

var (
	//go:embed record.lua
	recordSource string

	recordScript = redis.NewScript(recordSource)
)

// Record adds s to the history, unless that has a sample of the same second. It reports whether it did.
func Record(ctx context.Context, client redis.UniversalClient, s Sample) (bool, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("encode a sample: %w", err)
	}
	added, err := recordScript.Run(ctx, client, []string{historyKey}, s.At/1000, text, Kept).Int()
	if err != nil {
		return false, fmt.Errorf("record a sample: %w", err)
	}
	return added == 1, nil
}

// History returns the samples of the last 15 minutes before now (ms by Redis's clock), the oldest first. One that cannot be
// read is left out.
func History(ctx context.Context, client redis.UniversalClient, now int64) ([]Sample, error) {
	lines, err := client.LRange(ctx, historyKey, 0, Kept-1).Result()
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
