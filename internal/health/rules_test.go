package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/tasks"
)

// process is a running one, by role.
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

// well is a system in which nothing is wrong.
func well() Snapshot {
	return Snapshot{
		Sample: Sample{At: 1_000_000, Oldest: 1200, Dirty: 50},
		Processes: []Heartbeat{
			process(RoleAPI), process(RoleDashboard), process(RoleScheduler), process(RoleWorker),
		},
		Redis: cache.Info{Known: true, AOF: true, Used: 1, Limit: 100, Policy: "noeviction"},
	}
}

// growing adds a history in which the backlog has come to what it is from before, 15 s ago.
func growing(c *Snapshot, before int64) {
	for i := range int64(16) {
		c.History = append(c.History, Sample{At: c.At - 15_000 + i*1000, Dirty: before + (c.Dirty-before)*i/15})
	}
}

// moving adds a shard whose oldest key is younger by so many ms than the one of 15 s ago would be now.
func moving(c *Snapshot, younger int64) {
	shards := func(oldest int64) []cache.ShardBacklog {
		return []cache.ShardBacklog{{}, {Backlog: cache.Backlog{Oldest: Milliseconds(oldest)}}}
	}
	c.Shards, c.Then = shards(c.Oldest), ShardsAt{c.At - 15_000, shards(c.Oldest + younger - 15_000)}
}

// silence lets no process send a heartbeat for a minute.
func silence(c *Snapshot) {
	for i := range c.Processes {
		c.Processes[i].Age = time.Minute
	}
}

func TestStateIsOneSentenceThatSaysHowThingsAre(t *testing.T) {
	t.Parallel()
	worker := func(c *Snapshot) *Heartbeat { return &c.Processes[3] }
	for name, test := range map[string]struct {
		change func(*Snapshot)
		level  Level
		title  string
		advice string // a part of it
		also   []string
	}{
		"well": {func(*Snapshot) {}, Good, "Keeping up: 1.2 s behind.", "", nil},
		"idle": {func(c *Snapshot) { c.Dirty, c.Oldest = 0, 0 }, Good, "Keeping up: Postgres has everything.", "", nil},
		"only dead letters": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Dead = 0, 0, 2 },
			Warn, "Keeping up: Postgres has everything but 2 dead letters.", "",
			[]string{"2 dead letters need somebody."},
		},
		"before the first sample": {
			func(c *Snapshot) { *c = Snapshot{Starting: true} },
			Warn, "Starting: the first sample is on its way.", "second", nil,
		},
		"no redis": {
			func(c *Snapshot) { c.Failed = 12 * time.Second },
			Bad, "Redis has not answered for 12 s.", "Writes are refused", nil,
		},
		"redis has just begun to refuse writes": {
			func(c *Snapshot) { c.Refusal = "MISCONF" },
			Bad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Writes are answered 503. Its disk is full", nil,
		},
		"redis refuses writes, so that nobody can say that it runs": {
			func(c *Snapshot) { c.Refusal = "MISCONF"; silence(c) },
			Bad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Which processes run is not known", nil,
		},
		"redis refuses writes, cannot append, and there are dead letters": {
			func(c *Snapshot) { c.Refusal, c.Redis.AOFFailing, c.Dead = "MISCONF", true, 1; silence(c) },
			Bad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Do not restart it before that",
			[]string{"Redis cannot write its append-only file.", "1 dead letter needs somebody."},
		},
		"redis refuses writes while postgres is down": {
			func(c *Snapshot) {
				c.Refusal = "NOREPLICAS"
				worker(c).Postgres = PostgresDown
				silence(c)
			},
			Bad, "Redis refuses writes, since it has too few replicas; 50 keys are waiting.", "min-replicas-to-write",
			[]string{"Postgres was down too when workers said so last."},
		},
		"redis has become a replica": {
			func(c *Snapshot) { c.Refusal, c.Redis.Role = "READONLY", "slave"; silence(c) },
			Bad, "Redis refuses writes, since it is a replica; 50 keys are waiting.", "Find out which node is the master", nil,
		},
		"a replica that takes writes": {
			func(c *Snapshot) { c.Redis.Role = "slave" },
			Bad, "Redis is a replica that takes writes.", "lost when it syncs",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis takes writes again, and nobody has said yet that it runs": {
			func(c *Snapshot) { c.Missed, c.Redis.Role = true, "slave"; silence(c) },
			Warn, "Which workers run is not known; 50 keys are waiting.", "until just now", nil,
		},
		"redis takes writes again, and workers say that postgres is down": {
			func(c *Snapshot) {
				silence(c)
				c.Missed, worker(c).Age, worker(c).Postgres, worker(c).PostgresFor = true, 0, PostgresDown, 60_000
			},
			Bad, "Postgres has been down for 1 min; 50 keys are waiting.", "Start Postgres", nil,
		},
		"redis takes writes again, and no worker has come back": {
			func(c *Snapshot) { silence(c) },
			Bad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"No api is running.", "No scheduler is running."},
		},
		"redis is back, and what waited for it is late": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Missed, c.Back = 300, 65_000, true, true },
			Warn, "Redis is back; 300 keys are waiting.", "Whether workers catch up", nil,
		},
		"redis is back, and nothing is late": {
			func(c *Snapshot) { c.Missed, c.Back = true, true },
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
		"redis is back, and postgres is down": {
			func(c *Snapshot) {
				c.Oldest, c.Back, worker(c).Postgres, worker(c).PostgresFor = 65_000, true, PostgresDown, 60_000
			},
			Bad, "Postgres has been down for 1 min; 50 keys are waiting.", "Start Postgres", nil,
		},
		"redis loads its data": {
			func(c *Snapshot) { c.Denial, c.Failed = "LOADING", 12*time.Second },
			Bad, "Redis is loading its data, and has not served us for 12 s.", "Wait", nil,
		},
		"a cluster is down": {
			func(c *Snapshot) { c.Denial, c.Failed = "CLUSTERDOWN", 12*time.Second },
			Bad, "The cluster of Redis is down, and has not served us for 12 s.", "let a replica take over", nil,
		},
		"redis does not know us": {
			func(c *Snapshot) { c.Denial, c.Failed = "NOAUTH", 12*time.Second },
			Bad, "Redis wants a password, and has not served us for 12 s.", "REDIS_URL", nil,
		},
		"redis does not answer at all": {
			func(c *Snapshot) { c.Refusal, c.Failed = "MISCONF", time.Minute },
			Bad, "Redis has not answered for 1 min.", "Writes are refused", nil,
		},
		"a node of a cluster is away": {
			func(c *Snapshot) { c.Away = 21 },
			Bad, "21 shards do not answer.", "without it",
			[]string{"The other shards keep up: 1.2 s behind."},
		},
		"a node of a cluster is away, and with it what processes say": {
			func(c *Snapshot) { c.Away, c.Unread, c.Processes = 21, true, nil },
			Bad, "21 shards do not answer.", "A node of Redis is away",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"the node of a cluster with what processes say refuses writes": {
			func(c *Snapshot) { c.Refusal, c.Redis.Nodes = "MISCONF", 3; silence(c) },
			Bad, "A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "they say so by writing",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"a node of a cluster is away, and postgres is down": {
			func(c *Snapshot) {
				c.Away, worker(c).Postgres, worker(c).PostgresFor = 21, PostgresDown, 180_000
				c.History = []Sample{{At: c.At, Rejected: 12}}
			},
			Bad, "21 shards do not answer.", "Check that it runs",
			[]string{"Postgres has been down for 3 min; 50 keys are waiting.", "Requests fail: 12 a second."},
		},
		"a node of a cluster is away, and workers are gone": {
			func(c *Snapshot) { c.Away, worker(c).Age = 1, time.Minute },
			Bad, "1 shard does not answer.", "A node of Redis is away",
			[]string{"Workers are not running; 50 keys are waiting."},
		},
		"a node of a cluster is away, and another refuses writes": {
			func(c *Snapshot) { c.Away, c.Refusal, c.Redis.Nodes = 21, "MISCONF", 2 },
			Bad, "21 shards do not answer.", "A node of Redis is away",
			[]string{
				"A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.",
				"The other shards keep up: 1.2 s behind.",
			},
		},
		"a node of a cluster refuses writes": {
			func(c *Snapshot) { c.Refusal, c.Redis.Nodes = "MISCONF", 3 },
			Bad, "A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Writes to its counters",
			[]string{"The other shards keep up: 1.2 s behind."},
		},
		"a node of a cluster is nearly full": {
			func(c *Snapshot) { c.Redis.Used, c.Redis.Nodes = 95, 3 },
			Bad, "A node of Redis is 95% full.", "maxmemory",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"the keys of a node that went are not those of a backlog that shrinks": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest, c.Away = 9000, 45_000, 21
				growing(c, 12000)
				moving(c, 5000)
				for i := range c.History {
					c.History[i].Away = min(21, 7*int64(i))
				}
				c.History = c.History[:5]
			},
			Bad, "21 shards do not answer.", "without it",
			[]string{"Falling behind: 45 s, 9,000 keys are waiting."},
		},
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
		"no postgres, and one worker has seen when it went": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest = 41203, 180_000
				worker(c).Postgres, worker(c).PostgresFor = PostgresDown, 180_000
				started := process(RoleWorker)
				started.Postgres, started.PostgresFor, started.Uptime = PostgresDown, 4000, 4000
				c.Processes = append(c.Processes, started)
			},
			Bad, "Postgres has been down for 3 min; 41,203 keys are waiting.", "Start Postgres", nil,
		},
		"no postgres, after what waits had waited for workers": {
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
			Warn, "Workers have just begun to flush; 9,000 keys are waiting.", "in some seconds", nil,
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
			[]string{"3 dead letters need somebody.", "1 key waits for a retry."},
		},
		"rows that somebody holds locked": {
			func(c *Snapshot) { c.Retrying, c.Deferred = 5, 15 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by somebody else, or slow: 15 were put aside in the last 30 s."},
		},
		"rows that somebody holds locked, and that are tried just now": {
			func(c *Snapshot) { c.Deferred = 1 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by somebody else, or slow: 1 was put aside in the last 30 s."},
		},
		"rows that somebody holds locked, and some that postgres refused": {
			func(c *Snapshot) { c.Retrying, c.Deferred = 9, 6 },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{
				"Rows in Postgres are locked by somebody else, or slow: 6 were put aside in the last 30 s.",
				"At least 3 keys wait for a retry.",
			},
		},
		"redis nearly full": {
			func(c *Snapshot) { c.Redis.Used = 95 },
			Bad, "Redis is 95% full.", "maxmemory",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis nearly full, of what it may throw away": {
			func(c *Snapshot) { c.Redis.Used, c.Redis.Policy = 95, "volatile-ttl" },
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
		"a redis that throws away anything": {
			func(c *Snapshot) { c.Redis.Policy = "allkeys-lru" },
			Bad, "Redis may throw away counters that Postgres does not have yet.", "allkeys-lru",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"writes are refused": {
			func(c *Snapshot) { c.History = []Sample{{At: c.At, Rejected: 12}} },
			Bad, "Requests fail: 12 a second.", "None with 503 was applied, unless it says not_durable",
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
			Bad, "No api is running.", "Nobody can write.",
			[]string{"Keeping up: 1.2 s behind.", "No scheduler is running."},
		},
		"paused flushes": {
			func(c *Snapshot) {
				c.Dirty, c.Oldest, c.Paused = 9000, 45_000, []string{tasks.QueueFlush}
				growing(c, 6000)
			},
			Bad, "The queue aw-flush is paused: 9,000 keys are waiting.",
			"about 1 h 22 min at the present rate; after that, writes to new keys are refused. Until it is resumed, workers bring keys to Postgres only " +
				"when they are long overdue. Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with " +
				"`redis-cli DEL 'asynq:{aw-flush}:paused'`.", nil,
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
	} {
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
