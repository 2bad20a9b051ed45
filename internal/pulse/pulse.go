package pulse

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
	// Key is the hash that holds the pulses.
	Key = "aw:pulse"

	// Every is the time between two beats. Of those that say the same, every other one is left out.
	Every = time.Second

	// aliveFor is how old the last beat of a process may be that counts as running: some beats may be late or lost.
	aliveFor = 5 * time.Second

	// keepFor is how long a process that was killed is shown.
	keepFor = 10 * time.Minute

	// maxProcesses bounds the hash. Past it, new processes are not shown.
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

// Pulse is what a process says of itself. Durations are in ms, by its own monotonic clock, so no two clocks are compared.
type Pulse struct {
	ID      string `json:"-"`
	Role    string `json:"role"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Address string `json:"address"`
	Uptime  int64  `json:"uptime"`

	// Postgres is what it sees of Postgres, "" where it uses none, and PostgresFor for how long it has been so.
	Postgres    string `json:"postgres,omitempty"`
	PostgresFor int64  `json:"postgres_for,omitempty"`

	// SweptAgo is how long ago a scheduler has sent its last sweep; -1: never, or it is no scheduler.
	SweptAgo int64 `json:"swept_ago"`

	Settings Settings `json:"settings"`
	Counts   Counts   `json:"counts"`

	At  int64         `json:"-"` // of the beat, ms by Redis's clock
	Age time.Duration `json:"-"` // of the beat, when it was read
}

// Settings are those that decide what is normal.
type Settings struct {
	FlushInterval int64 `json:"flush_interval"` // ms
	SweepInterval int64 `json:"sweep_interval"` // ms
	MaxDirty      int64 `json:"max_dirty"`
}

// Alive reports whether the process ran when the pulses were read.
func (p Pulse) Alive() bool { return p.Age <= aliveFor }

// Read returns the last beat of each process, sorted by role, host and ID; now is the time by Redis's clock, in ms. A
// beat that cannot be read, of a later version perhaps, is left out.
func Read(ctx context.Context, client redis.Cmdable, now int64) ([]Pulse, error) {
	fields, err := client.HGetAll(ctx, Key).Result()
	if err != nil {
		return nil, fmt.Errorf("read pulses: %w", err)
	}
	pulses := make([]Pulse, 0, len(fields))
	for id, text := range fields {
		if p, ok := decode(id, text); ok {
			p.Age = time.Duration(max(now-p.At, 0)) * time.Millisecond
			pulses = append(pulses, p)
		}
	}
	slices.SortFunc(pulses, func(a, b Pulse) int {
		return strings.Compare(a.Role+"\x00"+a.Host+"\x00"+a.ID, b.Role+"\x00"+b.Host+"\x00"+b.ID)
	})
	return pulses, nil
}

func decode(id, text string) (Pulse, bool) {
	at, said, _ := strings.Cut(text, " ")
	var p Pulse
	if err := json.Unmarshal([]byte(said), &p); err != nil {
		return Pulse{}, false
	}
	var err error
	p.ID = id
	p.At, err = strconv.ParseInt(at, 10, 64)
	return p, err == nil
}

// Prune forgets those of pulses that have been gone for ten minutes. Where none is of a process that runs it writes even if
// there is nothing to forget: its error says why no beat arrives, if Redis takes none.
func Prune(ctx context.Context, client redis.Cmdable, pulses []Pulse) error {
	var old []string
	for _, p := range pulses {
		if p.Age > keepFor {
			old = append(old, p.ID)
		}
	}
	if len(old) == 0 {
		if len(pulses) == 0 || slices.ContainsFunc(pulses, Pulse.Alive) {
			return nil
		}
		old = []string{""} // nobody's
	}
	if err := client.HDel(ctx, Key, old...).Err(); err != nil {
		return fmt.Errorf("forget processes: %w", err)
	}
	return nil
}
