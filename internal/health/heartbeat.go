package health

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// HeartbeatKey is the hash of all heartbeats. A field is a process ID; its value is the time in ms by Redis's clock, a space, and a
	// Heartbeat as JSON.
	HeartbeatKey = "aw:pulse"

	// HeartbeatEvery is the time between two heartbeats. A process without changes skips every other one.
	HeartbeatEvery = time.Second

	// aliveFor is the age of the last heartbeat above which a process counts as gone. A few heartbeats may be late or lost.
	aliveFor = 5 * time.Second

	// keepFor is how long a killed process is shown.
	keepFor = 10 * time.Minute

	// maxProcesses bounds the hash. Further processes are not shown.
	maxProcesses = 512
)

// The roles of processes.
const (
	RoleAPI       = "api"
	RoleWorker    = "worker"
	RoleScheduler = "scheduler"
	RoleDashboard = "dashboard"
)

// The states of Postgres, as observed by a process.
const (
	PostgresUp   = "up"
	PostgresDown = "down"
)

// Heartbeat is the report of a process about itself. Durations are in ms by its own monotonic clock, so that clocks are never compared.
type Heartbeat struct {
	ID      string `json:"-"` // unique for each start of a process
	Role    string `json:"role"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Address string `json:"address"`
	Uptime  int64  `json:"uptime"`

	// Postgres is the state that the process observes, "" if it does not use Postgres. PostgresFor is the duration of that state.
	Postgres    string `json:"postgres,omitempty"`
	PostgresFor int64  `json:"postgres_for,omitempty"`

	// SweptAgo is the time since a scheduler sent its last sweep; -1: it has sent none, or the process is not a scheduler.
	SweptAgo int64 `json:"swept_ago"`

	Settings Settings `json:"settings"`
	Counts   Counts   `json:"counts"`

	// BrokenMappings are the mappings whose tables a worker cannot write, by name, with the beginning of the error.
	BrokenMappings map[string]string `json:"broken_mappings,omitempty"`

	At  int64         `json:"-"` // ms by Redis's clock
	Age time.Duration `json:"-"` // at the time of reading
}

// Settings are the settings that judgements depend on.
type Settings struct {
	FlushInterval int64 `json:"flush_interval"` // ms
	SweepInterval int64 `json:"sweep_interval"` // ms
	MaxDirty      int64 `json:"max_dirty"`

	// Mappings is mapping.Mappings.Digest: "" if the process has no mappings, or is of a version that knows none.
	Mappings string `json:"mappings,omitempty"`

	// History is counter.Patterns.Digest of AFTERWRITE_HISTORY: "" if it is not set, or the process is of a version that does not know it.
	// Mappings has the histories of mapped counters.
	History string `json:"history,omitempty"`
}

// Alive reports whether the process ran when its heartbeat was read.
func (h Heartbeat) Alive() bool { return h.Age <= aliveFor }

// ReadHeartbeats returns the last heartbeat of each process, sorted by role, host and ID. now is the time by Redis's clock, in ms.
// It skips heartbeats that it cannot decode, which may be from a later version. prefix is cache.Options.Prefix.
func ReadHeartbeats(ctx context.Context, client redis.Cmdable, prefix string, now int64) ([]Heartbeat, error) {
	fields, err := client.HGetAll(ctx, prefix+HeartbeatKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read heartbeats: %w", err)
	}
	all := make([]Heartbeat, 0, len(fields))
	for id, text := range fields {
		if h, ok := decodeHeartbeat(id, text); ok {
			h.Age = time.Duration(max(now-h.At, 0)) * time.Millisecond
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b Heartbeat) int {
		return strings.Compare(a.Role+"\x00"+a.Host+"\x00"+a.ID, b.Role+"\x00"+b.Host+"\x00"+b.ID)
	})
	return all, nil
}

func decodeHeartbeat(id, text string) (Heartbeat, bool) {
	at, body, _ := strings.Cut(text, " ")
	var h Heartbeat
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		return Heartbeat{}, false
	}
	var err error
	h.ID = id
	h.At, err = strconv.ParseInt(at, 10, 64)
	return h, err == nil
}

// prune removes heartbeats older than keepFor. If no process is alive, it writes even if there is nothing to remove: if Redis refuses
// writes, the error explains the missing heartbeats.
func prune(ctx context.Context, client redis.Cmdable, prefix string, all []Heartbeat) error {
	var old []string
	for _, h := range all {
		if h.Age > keepFor {
			old = append(old, h.ID)
		}
	}
	if len(old) == 0 {
		if len(all) == 0 || slices.ContainsFunc(all, Heartbeat.Alive) {
			return nil
		}
		old = []string{""} // no process has this ID
	}
	if err := client.HDel(ctx, prefix+HeartbeatKey, old...).Err(); err != nil {
		return fmt.Errorf("remove old heartbeats: %w", err)
	}
	return nil
}
