package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

// process returns the heartbeat of a running process.
func process(role string) Heartbeat {
	p := Heartbeat{ID: role, Role: role, Uptime: 7_200_000, SweptAgo: -1, Settings: Settings{
		FlushInterval: 1000, SweepInterval: 5000, MaxDirty: 1_000_000,
	}}
	switch role {
	case RoleWorker:
		p.Postgres, p.PostgresFor = PostgresUp, 3_600_000
	case RoleScheduler:
		p.SweptAgo = 2000
	}
	return p
}

// well returns the snapshot of a healthy system.
func well() Snapshot {
	return Snapshot{
		Sample: Sample{At: 1_000_000, Oldest: 1200, Dirty: 50},
		Processes: []Heartbeat{
			process(RoleAPI), process(RoleDashboard), process(RoleScheduler), process(RoleWorker),
		},
		Redis: cache.Info{Known: true, AOF: true, Used: 1, Limit: 100, Policy: "noeviction"},
	}
}

// growing adds a history of 15 s in which the backlog changed from before to its current size.
func growing(c *Snapshot, before int64) {
	for i := range int64(16) {
		c.History = append(c.History, Sample{At: c.At - 15_000 + i*1000, Dirty: before + (c.Dirty-before)*i/15})
	}
}

// moving adds a shard that flushed keys in the last 15 s, so that its oldest key is younger by the given ms than without the flush.
func moving(c *Snapshot, younger int64) {
	shards := func(oldest int64) []cache.ShardBacklog {
		return []cache.ShardBacklog{{}, {Backlog: cache.Backlog{Oldest: Milliseconds(oldest)}}}
	}
	c.Shards, c.Then = shards(c.Oldest), ShardsAt{c.At - 15_000, shards(c.Oldest + younger - 15_000)}
}

// silence ages all heartbeats to a minute.
func silence(c *Snapshot) {
	for i := range c.Processes {
		c.Processes[i].Age = time.Minute
	}
}

// judgement is an expected Report.
type judgement struct {
	change func(*Snapshot)
	level  Level
	title  string
	advice string // a part of the advice
	also   []string
}

func worker(c *Snapshot) *Heartbeat { return &c.Processes[3] }

// requireJudgements changes a healthy system, and compares its Report.
func requireJudgements(t *testing.T, tests map[string]judgement) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := well()
			test.change(&c)

			s := c.Judge()

			require.Equal(t, test.title, s.Sentence)
			require.Equal(t, test.level, s.Level)
			require.Contains(t, s.Advice, test.advice)
			var also []string
			for _, f := range s.Also {
				also = append(also, f.Sentence)
			}
			require.Equal(t, test.also, also)
		})
	}
}

func TestJudgementsOfPostgresAndWorkers(t *testing.T) {
	t.Parallel()
	requireJudgements(t, map[string]judgement{
		"no postgres": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 41203, 180_000
				worker(c).Postgres, worker(c).PostgresFor = PostgresDown, 180_000
				growing(c, 26203)
			},
			Bad, "Postgres has been down for 3 min; 41,203 keys are waiting.",
			"Writes are safe in Redis, and go to Postgres by themselves when it is back. " +
				"There is room for 958,797 more keys, about 15 min at the present rate", nil,
		},
		"no postgres since before the worker started": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 41203, 10_800_000
				worker(c).Postgres, worker(c).PostgresFor, worker(c).Uptime = PostgresDown, 3900, 4000
			},
			Bad, "Postgres has been down for at least 3.9 s; 41,203 keys are waiting, the oldest for 3 h.", "Start Postgres", nil,
		},
		"no postgres since before the worker started, and nothing was written": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 0, 0
				worker(c).Postgres, worker(c).PostgresFor, worker(c).Uptime = PostgresDown, 60_000, 62_000
			},
			Bad, "Postgres has been down for at least 1 min; 0 keys are waiting.", "Start Postgres", nil,
		},
		"no postgres, and one worker observed the beginning": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 41203, 180_000
				worker(c).Postgres, worker(c).PostgresFor = PostgresDown, 180_000
				started := process(RoleWorker)
				started.Postgres, started.PostgresFor, started.Uptime = PostgresDown, 4000, 4000
				c.Processes = append(c.Processes, started)
			},
			Bad, "Postgres has been down for 3 min; 41,203 keys are waiting.", "Start Postgres", nil,
		},
		"no postgres, after keys had waited for workers": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 41203, 10_800_000
				worker(c).Postgres, worker(c).PostgresFor = PostgresDown, 180_000
			},
			Bad, "Postgres has been down for at least 3 min; 41,203 keys are waiting, the oldest for 3 h.", "Start Postgres", nil,
		},
		"one worker without postgres": {
			func(c *Snapshot) {
				lost := process(RoleWorker)
				lost.Postgres = PostgresDown
				c.Processes = append(c.Processes, lost)
			},
			Warn, "1 of 2 workers cannot reach Postgres.", "max_connections", nil,
		},
		"most workers without postgres, and late": {
			func(c *Snapshot) {
				for range 3 {
					lost := process(RoleWorker)
					lost.Postgres = PostgresDown
					c.Processes = append(c.Processes, lost)
				}
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 6000)
			},
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers",
			[]string{"3 of 4 workers cannot reach Postgres."},
		},
		"no worker": {
			func(c *Snapshot) { worker(c).Age = time.Minute },
			Bad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`", nil,
		},
		"falling behind": {
			func(c *Snapshot) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 6000) },
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"catching up": {
			func(c *Snapshot) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 12000); moving(c, 5000) },
			Warn, "Catching up: 9,000 keys are waiting, about 45 s to go.", "nothing to do", nil,
		},
		"fewer keys, and the oldest one is stuck": {
			func(c *Snapshot) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 12000); moving(c, 0) },
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"fewer keys, but not soon": {
			func(c *Snapshot) { c.Dirty, c.Oldest = 900_000, 45_000; growing(c, 900_150); moving(c, 5000) },
			Bad, "Falling behind: 45 s, 900,000 keys are waiting.", "start more workers", nil,
		},
		"fewer keys than 15 s ago, but more than 5 s ago": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 12000)
				moving(c, 5000)
				for i := range c.History[:10] {
					c.History[i].Dirty = 8000
				}
				c.History[0].Dirty = 12000
			},
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"postgres has just come back": {
			func(c *Snapshot) { c.Dirty, c.Oldest, worker(c).PostgresFor = 9000, 45_000, 3000; growing(c, 6000) },
			Warn, "Workers have just begun to flush; 9,000 keys are waiting.", "In a few seconds", nil,
		},
		"workers end again and again": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest, worker(c).PostgresFor = 9000, 45_000, 3000
				for range 3 {
					ended := process(RoleWorker)
					ended.Age = time.Minute
					c.Processes = append(c.Processes, ended)
				}
				growing(c, 6000)
			},
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"one of two workers has just been started": {
			func(c *Snapshot) {
				started := process(RoleWorker)
				started.PostgresFor = 3000
				c.Processes = append(c.Processes, started)
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 6000)
			},
			Bad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"dead letters": {
			func(c *Snapshot) { c.Dead, c.Retrying = 3, 1 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"3 dead letters need attention.", "1 key waits for a retry."},
		},
		"locked rows": {
			func(c *Snapshot) { c.Retrying, c.Deferred = 5, 15 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by another transaction, or slow: 15 were deferred in the last 30 s."},
		},
		"locked rows that are being retried": {
			func(c *Snapshot) { c.Deferred = 1 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by another transaction, or slow: 1 was deferred in the last 30 s."},
		},
		"locked rows and refused rows": {
			func(c *Snapshot) { c.Retrying, c.Deferred = 9, 6 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{
				"Rows in Postgres are locked by another transaction, or slow: 6 were deferred in the last 30 s.",
				"At least 3 keys wait for a retry.",
			},
		},
		"redis nearly full": {
			func(c *Snapshot) { c.Redis.Used = 95 },
			Bad, "Redis is 95% full.", "maxmemory",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis nearly full, with a policy that evicts": {
			func(c *Snapshot) { c.Redis.Used, c.Redis.Policy = 95, "volatile-ttl" },
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
		"a redis that may evict dirty entries": {
			func(c *Snapshot) { c.Redis.Policy = "allkeys-lru" },
			Bad, "Redis may evict counters that Postgres does not have yet.", "allkeys-lru",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"writes are refused": {
			func(c *Snapshot) { c.History = []Sample{{At: c.At, Rejected: 12}} },
			Bad, "Requests fail: 12 a second.", "were not applied, except not_durable ones",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"writes are refused since redis is full": {
			func(c *Snapshot) {
				c.Redis.Used, c.History = 99, []Sample{{At: c.At, Rejected: 400}}
			},
			Bad, "Redis is 99% full.", "Raise maxmemory",
			[]string{"Keeping up: 1.2 s behind.", "Requests fail: 400 a second."},
		},
		"writes are refused since redis cannot append": {
			func(c *Snapshot) { c.Redis.AOFFailing, c.History = true, []Sample{{At: c.At, Rejected: 400}} },
			Bad, "Redis cannot write its append-only file.", "full disk",
			[]string{"Keeping up: 1.2 s behind.", "Requests fail: 400 a second."},
		},
		"one write was refused": {
			func(c *Snapshot) {
				for i := range int64(10) {
					c.History = append(c.History, Sample{At: c.At - 9000 + i*1000})
				}
				c.History[4].Rejected = 1
			},
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Requests fail: 0.1 a second."},
		},
		"no append-only file": {
			func(c *Snapshot) { c.Redis.AOF = false },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Redis keeps no append-only file."},
		},
		"a failing append-only file": {
			func(c *Snapshot) { c.Redis.AOFFailing = true },
			Bad, "Redis cannot write its append-only file.", "full disk",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"no api, no scheduler": {
			func(c *Snapshot) { c.Processes = c.Processes[3:] },
			Bad, "No api is running.", "No client can write.",
			[]string{"Keeping up: 1.2 s behind.", "No scheduler is running."},
		},
		"paused flushes": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest, c.Paused = 9000, 45_000, []string{tasks.QueueFlush}
				growing(c, 6000)
			},
			Bad, "The queue aw-flush is paused: 9,000 keys are waiting.",
			"about 1 h 22 min at the present rate; after that, writes to new keys are refused. Until it is resumed, workers flush keys only " +
				"when they are long overdue. Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with " +
				"`redis-cli DEL 'asynq:{aw-flush}:paused'`.", nil,
		},
		"one of a cluster's queues of flushes is paused": {
			func(c *Snapshot) { c.Paused = []string{tasks.QueueFlush + "-2"} },
			Bad, "The queue aw-flush-2 is paused: 50 keys are waiting.", "`redis-cli DEL 'asynq:{aw-flush-2}:paused'`", nil,
		},
		"paused flushes, and nothing to flush": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Paused = 0, 0, []string{tasks.QueueFlush} },
			Bad, "The queue aw-flush is paused: 0 keys are waiting.", "Resume it", nil,
		},
		"paused flushes, and no worker": {
			func(c *Snapshot) { worker(c).Age, c.Paused = time.Minute, []string{tasks.QueueFlush} },
			Bad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"The queue aw-flush is paused: flushes wait."},
		},
		"paused flushes, and no postgres": {
			func(c *Snapshot) {
				worker(c).Postgres, worker(c).PostgresFor, c.Paused = PostgresDown, 180_000, []string{tasks.QueueFlush}
			},
			Bad, "Postgres has been down for 3 min; 50 keys are waiting.", "Start Postgres",
			[]string{"The queue aw-flush is paused: flushes wait."},
		},
		"paused retries and sweeps": {
			func(c *Snapshot) { c.Paused = []string{tasks.QueueRetry, tasks.QueueSweep} },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"The queue aw-retry is paused.", "The queue aw-sweep is paused."},
		},
		"no sweeps": {
			func(c *Snapshot) { c.Processes[2].SweptAgo = 60_000 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"The last sweep was sent 1 min ago."},
		},
		"never a sweep": {
			func(c *Snapshot) { c.Processes[2].SweptAgo, c.Processes[2].Uptime = -1, 60_000 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"No sweep has been sent since the scheduler started, 1 min ago."},
		},
		"no sweep yet": {
			func(c *Snapshot) { c.Processes[2].SweptAgo, c.Processes[2].Uptime = -1, 3000 },
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
	})
}
