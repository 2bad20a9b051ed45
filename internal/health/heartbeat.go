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
	// HeartbeatKey is the hash of all heartbeats: process ID -> ms by Redis's clock, a space, and a Heartbeat as JSON.
	HeartbeatKey = "aw:pulse"

	// HeartbeatEvery is the time between two heartbeats. A process with nothing new to report leaves out every other one.
	HeartbeatEvery = time.Second

	// aliveFor is the largest age of the last heartbeat of a process that counts as running: a few may be late or lost.
	aliveFor = 5 * time.Second

	// keepFor is how long a process that was killed is shown.
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

// The states of Postgres, as a process sees it.
const (
	PostgresUp   = "up"
	PostgresDown = "down"
)

// Heartbeat is what a process reports about itself. Durations are in ms, by its own monotonic clock, so that no two clocks are compared.
type Heartbeat struct {
	ID      string `json:"-"` // of one run of a process; never used again
	Role    string `json:"role"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Address string `json:"address"`
	Uptime  int64  `json:"uptime"`

	// Postgres is the state that the process sees, "" if it does not use Postgres. PostgresFor is for how long it has been so.
	Postgres    string `json:"postgres,omitempty"`
	PostgresFor int64  `json:"postgres_for,omitempty"`

	// SweptAgo is how long ago a scheduler sent its last sweep; -1: never, or the process is no scheduler.
	SweptAgo int64 `json:"swept_ago"`

	Settings Settings `json:"settings"`
	Counts   Counts   `json:"counts"`

	At  int64         `json:"-"` // ms by Redis's clock
	Age time.Duration `json:"-"` // when it was read
}

// Settings are those that decide what is normal.
type Settings struct {
	FlushInterval int64 `json:"flush_interval"` // ms
	SweepInterval int64 `json:"sweep_interval"` // ms
	MaxDirty      int64 `json:"max_dirty"`
}

// Alive reports whether the process ran when its heartbeat was read.
func (h Heartbeat) Alive() bool { return h.Age <= aliveFor }

// ReadHeartbeats returns the last heartbeat of each process, sorted by role, host and ID. now is the time by Redis's clock, in ms.
// It leaves out heartbeats that it cannot decode, which may be those of a later version. prefix is that of cache.Options.
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

// prune removes the heartbeats of processes that have been gone for ten minutes. If no process is alive, it writes even if there
// is nothing to remove: the error tells why no heartbeat arrives, where Redis refuses writes.
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
