package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/internal/sample"
	"github.com/afterwrite/afterwrite/tasks"
)

// process is a running one, by role.
func process(role string) pulse.Pulse {
	p := pulse.Pulse{ID: role, Role: role, Uptime: 7_200_000, SweptAgo: -1, Settings: pulse.Settings{
		FlushInterval: 1000, SweepInterval: 5000, MaxDirty: 1_000_000,
	}}
	switch role {
	case pulse.RoleWorker:
		p.Postgres, p.PostgresFor = pulse.PostgresUp, 3_600_000
	case pulse.RoleScheduler:
		p.SweptAgo = 2000
	}
	return p
}

// well is a system in which nothing is wrong.
func well() condition {
	return condition{Snapshot: sample.Snapshot{
		Sample: sample.Sample{At: 1_000_000, Oldest: 1200, Dirty: 50},
		Processes: []pulse.Pulse{
			process(pulse.RoleAPI), process(pulse.RoleDashboard), process(pulse.RoleScheduler), process(pulse.RoleWorker),
		},
		Redis: sample.Redis{Known: true, AOF: true, Used: 1, Limit: 100, Policy: "noeviction"},
	}}
}

// growing adds a history in which the backlog has come to what it is from before, 15 s ago.
func growing(c *condition, before int64) {
	for i := range int64(16) {
		c.History = append(c.History, sample.Sample{At: c.At - 15_000 + i*1000, Dirty: before + (c.Dirty-before)*i/15})
	}
}

// moving adds a shard whose oldest key is younger by so many ms than the one of 15 s ago would be now.
func moving(c *condition, younger int64) {
	shards := func(oldest int64) []cache.ShardBacklog {
		return []cache.ShardBacklog{{}, {Backlog: cache.Backlog{Oldest: duration(oldest)}}}
	}
	c.Shards, c.Then = shards(c.Oldest), shardsAt{c.At - 15_000, shards(c.Oldest + younger - 15_000)}
}

// silent lets all processes have said nothing for a minute.
func silent(c *condition) {
	for i := range c.Processes {
		c.Processes[i].Age = time.Minute
	}
}

func TestStateIsOneSentenceThatSaysHowThingsAre(t *testing.T) {
	t.Parallel()
	worker := func(c *condition) *pulse.Pulse { return &c.Processes[3] }
	for name, test := range map[string]struct {
		change func(*condition)
		level  string
		title  string
		advice string // a part of it
		also   []string
	}{
		"well": {func(*condition) {}, levelGood, "Keeping up: 1.2 s behind.", "", nil},
		"idle": {func(c *condition) { c.Dirty, c.Oldest = 0, 0 }, levelGood, "Keeping up: Postgres has everything.", "", nil},
		"only dead letters": {
			func(c *condition) { c.Dirty, c.Oldest, c.Dead = 0, 0, 2 },
			levelWarn, "Keeping up: Postgres has everything but 2 dead letters.", "",
			[]string{"2 dead letters need somebody."},
		},
		"before the first sample": {
			func(c *condition) { *c = condition{Starting: true} },
			levelWarn, "Starting: the first sample is on its way.", "second", nil,
		},
		"no redis": {
			func(c *condition) { c.Failed = 12 * time.Second },
			levelBad, "Redis has not answered for 12 s.", "Writes are refused", nil,
		},
		"redis has just begun to refuse writes": {
			func(c *condition) { c.Refusal = "MISCONF" },
			levelBad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Writes are answered 503. Its disk is full", nil,
		},
		"redis refuses writes, so that nobody can say that it runs": {
			func(c *condition) { c.Refusal = "MISCONF"; silent(c) },
			levelBad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Which processes run is not known", nil,
		},
		"redis refuses writes, cannot append, and there are dead letters": {
			func(c *condition) { c.Refusal, c.Redis.AOFFailing, c.Dead = "MISCONF", true, 1; silent(c) },
			levelBad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Do not restart it before that",
			[]string{"Redis cannot write its append-only file.", "1 dead letter needs somebody."},
		},
		"redis refuses writes while postgres is down": {
			func(c *condition) {
				c.Refusal = "NOREPLICAS"
				worker(c).Postgres = pulse.PostgresDown
				silent(c)
			},
			levelBad, "Redis refuses writes, since it has too few replicas; 50 keys are waiting.", "min-replicas-to-write",
			[]string{"Postgres was down too when workers said so last."},
		},
		"redis has become a replica": {
			func(c *condition) { c.Refusal, c.Redis.Role = "READONLY", "slave"; silent(c) },
			levelBad, "Redis refuses writes, since it is a replica; 50 keys are waiting.", "Find out which node is the master", nil,
		},
		"a replica that takes writes": {
			func(c *condition) { c.Redis.Role = "slave" },
			levelBad, "Redis is a replica that takes writes.", "lost when it syncs",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis takes writes again, and nobody has said yet that it runs": {
			func(c *condition) { c.Deaf, c.Redis.Role = true, "slave"; silent(c) },
			levelWarn, "Which workers run is not known; 50 keys are waiting.", "until just now", nil,
		},
		"redis takes writes again, and workers say that postgres is down": {
			func(c *condition) {
				silent(c)
				c.Deaf, worker(c).Age, worker(c).Postgres, worker(c).PostgresFor = true, 0, pulse.PostgresDown, 60_000
			},
			levelBad, "Postgres has been down for 1 min; 50 keys are waiting.", "Start Postgres", nil,
		},
		"redis takes writes again, and no worker has come back": {
			func(c *condition) { silent(c) },
			levelBad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"No api is running.", "No scheduler is running."},
		},
		"redis is back, and what waited for it is late": {
			func(c *condition) { c.Dirty, c.Oldest, c.Deaf, c.Back = 300, 65_000, true, true },
			levelWarn, "Redis is back; 300 keys are waiting.", "Whether workers catch up", nil,
		},
		"redis is back, and nothing is late": {
			func(c *condition) { c.Deaf, c.Back = true, true },
			levelGood, "Keeping up: 1.2 s behind.", "", nil,
		},
		"redis is back, and postgres is down": {
			func(c *condition) {
				c.Oldest, c.Back, worker(c).Postgres, worker(c).PostgresFor = 65_000, true, pulse.PostgresDown, 60_000
			},
			levelBad, "Postgres has been down for 1 min; 50 keys are waiting.", "Start Postgres", nil,
		},
		"redis loads its data": {
			func(c *condition) { c.Denial, c.Failed = "LOADING", 12*time.Second },
			levelBad, "Redis is loading its data, and has not served us for 12 s.", "Wait", nil,
		},
		"a cluster is down": {
			func(c *condition) { c.Denial, c.Failed = "CLUSTERDOWN", 12*time.Second },
			levelBad, "The cluster of Redis is down, and has not served us for 12 s.", "let a replica take over", nil,
		},
		"redis does not know us": {
			func(c *condition) { c.Denial, c.Failed = "NOAUTH", 12*time.Second },
			levelBad, "Redis wants a password, and has not served us for 12 s.", "REDIS_URL", nil,
		},
		"redis does not answer at all": {
			func(c *condition) { c.Refusal, c.Failed = "MISCONF", time.Minute },
			levelBad, "Redis has not answered for 1 min.", "Writes are refused", nil,
		},
		"a node of a cluster is away": {
			func(c *condition) { c.Away = 21 },
			levelBad, "21 shards do not answer.", "without it",
			[]string{"The other shards keep up: 1.2 s behind."},
		},
		"a node of a cluster is away, and with it what processes say": {
			func(c *condition) { c.Away, c.Unread, c.Processes = 21, true, nil },
			levelBad, "21 shards do not answer.", "A node of Redis is away",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"the node of a cluster with what processes say refuses writes": {
			func(c *condition) { c.Refusal, c.Redis.Nodes = "MISCONF", 3; silent(c) },
			levelBad, "A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "they say so by writing",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"a node of a cluster is away, and postgres is down": {
			func(c *condition) {
				c.Away, worker(c).Postgres, worker(c).PostgresFor = 21, pulse.PostgresDown, 180_000
				c.History = []sample.Sample{{At: c.At, Rejected: 12}}
			},
			levelBad, "21 shards do not answer.", "Check that it runs",
			[]string{"Postgres has been down for 3 min; 50 keys are waiting.", "Requests fail: 12 a second."},
		},
		"a node of a cluster is away, and workers are gone": {
			func(c *condition) { c.Away, worker(c).Age = 1, time.Minute },
			levelBad, "1 shard does not answer.", "A node of Redis is away",
			[]string{"Workers are not running; 50 keys are waiting."},
		},
		"a node of a cluster is away, and another refuses writes": {
			func(c *condition) { c.Away, c.Refusal, c.Redis.Nodes = 21, "MISCONF", 2 },
			levelBad, "21 shards do not answer.", "A node of Redis is away",
			[]string{
				"A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.",
				"The other shards keep up: 1.2 s behind.",
			},
		},
		"a node of a cluster refuses writes": {
			func(c *condition) { c.Refusal, c.Redis.Nodes = "MISCONF", 3 },
			levelBad, "A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Writes to its counters",
			[]string{"The other shards keep up: 1.2 s behind."},
		},
		"a node of a cluster is nearly full": {
			func(c *condition) { c.Redis.Used, c.Redis.Nodes = 95, 3 },
			levelBad, "A node of Redis is 95% full.", "maxmemory",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"the keys of a node that went are not those of a backlog that shrinks": {
			func(c *condition) {
				c.Dirty, c.Oldest, c.Away = 9000, 45_000, 21
				growing(c, 12000)
				moving(c, 5000)
				for i := range c.History {
					c.History[i].Away = min(21, 7*int64(i))
				}
				c.History = c.History[:5]
			},
			levelBad, "21 shards do not answer.", "without it",
			[]string{"Falling behind: 45 s, 9,000 keys are waiting."},
		},
		"no postgres": {
			func(c *condition) {
				c.Dirty, c.Oldest = 41203, 180_000
				worker(c).Postgres, worker(c).PostgresFor = pulse.PostgresDown, 180_000
				growing(c, 26203)
			},
			levelBad, "Postgres has been down for 3 min; 41,203 keys are waiting.",
			"Writes are safe in Redis, and go to Postgres by themselves when it is back. " +
				"There is room for 958,797 more keys, about 15 min at the present rate", nil,
		},
		"no postgres since before the worker started": {
			func(c *condition) {
				c.Dirty, c.Oldest = 41203, 10_800_000
				worker(c).Postgres, worker(c).PostgresFor, worker(c).Uptime = pulse.PostgresDown, 3900, 4000
			},
			levelBad, "Postgres has been down for at least 3.9 s; 41,203 keys are waiting, the oldest for 3 h.", "Start Postgres", nil,
		},
		"no postgres since before the worker started, and nothing was written": {
			func(c *condition) {
				c.Dirty, c.Oldest = 0, 0
				worker(c).Postgres, worker(c).PostgresFor, worker(c).Uptime = pulse.PostgresDown, 60_000, 62_000
			},
			levelBad, "Postgres has been down for at least 1 min; 0 keys are waiting.", "Start Postgres", nil,
		},
		"no postgres, and one worker has seen when it went": {
			func(c *condition) {
				c.Dirty, c.Oldest = 41203, 180_000
				worker(c).Postgres, worker(c).PostgresFor = pulse.PostgresDown, 180_000
				started := process(pulse.RoleWorker)
				started.Postgres, started.PostgresFor, started.Uptime = pulse.PostgresDown, 4000, 4000
				c.Processes = append(c.Processes, started)
			},
			levelBad, "Postgres has been down for 3 min; 41,203 keys are waiting.", "Start Postgres", nil,
		},
		"no postgres, after what waits had waited for workers": {
			func(c *condition) {
				c.Dirty, c.Oldest = 41203, 10_800_000
				worker(c).Postgres, worker(c).PostgresFor = pulse.PostgresDown, 180_000
			},
			levelBad, "Postgres has been down for at least 3 min; 41,203 keys are waiting, the oldest for 3 h.", "Start Postgres", nil,
		},
		"one worker without postgres": {
			func(c *condition) {
				lost := process(pulse.RoleWorker)
				lost.Postgres = pulse.PostgresDown
				c.Processes = append(c.Processes, lost)
			},
			levelWarn, "1 of 2 workers cannot reach Postgres.", "max_connections", nil,
		},
		"most workers without postgres, and late": {
			func(c *condition) {
				for range 3 {
					lost := process(pulse.RoleWorker)
					lost.Postgres = pulse.PostgresDown
					c.Processes = append(c.Processes, lost)
				}
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 6000)
			},
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers",
			[]string{"3 of 4 workers cannot reach Postgres."},
		},
		"no worker": {
			func(c *condition) { worker(c).Age = time.Minute },
			levelBad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`", nil,
		},
		"falling behind": {
			func(c *condition) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 6000) },
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"catching up": {
			func(c *condition) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 12000); moving(c, 5000) },
			levelWarn, "Catching up: 9,000 keys are waiting, about 45 s to go.", "nothing to do", nil,
		},
		"fewer keys, and the oldest one is stuck": {
			func(c *condition) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 12000); moving(c, 0) },
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"fewer keys, but not soon": {
			func(c *condition) { c.Dirty, c.Oldest = 900_000, 45_000; growing(c, 900_150); moving(c, 5000) },
			levelBad, "Falling behind: 45 s, 900,000 keys are waiting.", "start more workers", nil,
		},
		"fewer keys than 15 s ago, but more than 5 s ago": {
			func(c *condition) {
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 12000)
				moving(c, 5000)
				for i := range c.History[:10] {
					c.History[i].Dirty = 8000
				}
				c.History[0].Dirty = 12000
			},
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"postgres has just come back": {
			func(c *condition) { c.Dirty, c.Oldest, worker(c).PostgresFor = 9000, 45_000, 3000; growing(c, 6000) },
			levelWarn, "Workers have just begun to flush; 9,000 keys are waiting.", "in some seconds", nil,
		},
		"workers end again and again": {
			func(c *condition) {
				c.Dirty, c.Oldest, worker(c).PostgresFor = 9000, 45_000, 3000
				for range 3 {
					ended := process(pulse.RoleWorker)
					ended.Age = time.Minute
					c.Processes = append(c.Processes, ended)
				}
				growing(c, 6000)
			},
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"one of two workers has just been started": {
			func(c *condition) {
				started := process(pulse.RoleWorker)
				started.PostgresFor = 3000
				c.Processes = append(c.Processes, started)
				c.Dirty, c.Oldest = 9000, 45_000
				growing(c, 6000)
			},
			levelBad, "Falling behind: 45 s, 9,000 keys are waiting.", "start more workers", nil,
		},
		"dead letters": {
			func(c *condition) { c.Dead, c.Retrying = 3, 1 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"3 dead letters need somebody.", "1 key waits for a retry."},
		},
		"rows that somebody holds locked": {
			func(c *condition) { c.Retrying, c.Hindered = 5, 15 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by somebody else, or slow: 15 were put aside in the last 30 s."},
		},
		"rows that somebody holds locked, and that are tried just now": {
			func(c *condition) { c.Hindered = 1 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"Rows in Postgres are locked by somebody else, or slow: 1 was put aside in the last 30 s."},
		},
		"rows that somebody holds locked, and some that postgres refused": {
			func(c *condition) { c.Retrying, c.Hindered = 9, 6 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{
				"Rows in Postgres are locked by somebody else, or slow: 6 were put aside in the last 30 s.",
				"At least 3 keys wait for a retry.",
			},
		},
		"redis nearly full": {
			func(c *condition) { c.Redis.Used = 95 },
			levelBad, "Redis is 95% full.", "maxmemory",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis nearly full, of what it may throw away": {
			func(c *condition) { c.Redis.Used, c.Redis.Policy = 95, "volatile-ttl" },
			levelGood, "Keeping up: 1.2 s behind.", "", nil,
		},
		"a redis that throws away anything": {
			func(c *condition) { c.Redis.Policy = "allkeys-lru" },
			levelBad, "Redis may throw away counters that Postgres does not have yet.", "allkeys-lru",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"writes are refused": {
			func(c *condition) { c.History = []sample.Sample{{At: c.At, Rejected: 12}} },
			levelBad, "Requests fail: 12 a second.", "None with 503 was applied, unless it says not_durable",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"writes are refused since redis is full": {
			func(c *condition) {
				c.Redis.Used, c.History = 99, []sample.Sample{{At: c.At, Rejected: 400}}
			},
			levelBad, "Redis is 99% full.", "Raise maxmemory",
			[]string{"Keeping up: 1.2 s behind.", "Requests fail: 400 a second."},
		},
		"writes are refused since redis cannot append": {
			func(c *condition) { c.Redis.AOFFailing, c.History = true, []sample.Sample{{At: c.At, Rejected: 400}} },
			levelBad, "Redis cannot write its append-only file.", "full disk",
			[]string{"Keeping up: 1.2 s behind.", "Requests fail: 400 a second."},
		},
		"one write was refused": {
			func(c *condition) {
				for i := range int64(10) {
					c.History = append(c.History, sample.Sample{At: c.At - 9000 + i*1000})
				}
				c.History[4].Rejected = 1
			},
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"Requests fail: 0.1 a second."},
		},
		"no append-only file": {
			func(c *condition) { c.Redis.AOF = false },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"Redis keeps no append-only file."},
		},
		"a failing append-only file": {
			func(c *condition) { c.Redis.AOFFailing = true },
			levelBad, "Redis cannot write its append-only file.", "full disk",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"no api, no scheduler": {
			func(c *condition) { c.Processes = c.Processes[3:] },
			levelBad, "No api is running.", "Nobody can write.",
			[]string{"Keeping up: 1.2 s behind.", "No scheduler is running."},
		},
		"paused flushes": {
			func(c *condition) {
				c.Dirty, c.Oldest, c.Paused = 9000, 45_000, []string{tasks.QueueFlush}
				growing(c, 6000)
			},
			levelBad, "The queue aw-flush is paused: 9,000 keys are waiting.",
			"about 1 h 22 min at the present rate; after that new keys are refused. Until it is resumed, workers bring keys to Postgres only " +
				"when they are long overdue. Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with " +
				"`redis-cli DEL 'asynq:{aw-flush}:paused'`.", nil,
		},
		"paused flushes, and nothing to flush": {
			func(c *condition) { c.Dirty, c.Oldest, c.Paused = 0, 0, []string{tasks.QueueFlush} },
			levelBad, "The queue aw-flush is paused: 0 keys are waiting.", "Resume it", nil,
		},
		"paused flushes, and no worker": {
			func(c *condition) { worker(c).Age, c.Paused = time.Minute, []string{tasks.QueueFlush} },
			levelBad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"The queue aw-flush is paused: flushes wait."},
		},
		"paused flushes, and no postgres": {
			func(c *condition) {
				worker(c).Postgres, worker(c).PostgresFor, c.Paused = pulse.PostgresDown, 180_000, []string{tasks.QueueFlush}
			},
			levelBad, "Postgres has been down for 3 min; 50 keys are waiting.", "Start Postgres",
			[]string{"The queue aw-flush is paused: flushes wait."},
		},
		"paused retries and sweeps": {
			func(c *condition) { c.Paused = []string{tasks.QueueRetry, tasks.QueueSweep} },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"The queue aw-retry is paused.", "The queue aw-sweep is paused."},
		},
		"no sweeps": {
			func(c *condition) { c.Processes[2].SweptAgo = 60_000 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"The last sweep was sent 1 min ago."},
		},
		"never a sweep": {
			func(c *condition) { c.Processes[2].SweptAgo, c.Processes[2].Uptime = -1, 60_000 },
			levelWarn, "Keeping up: 1.2 s behind.", "",
			[]string{"No sweep has been sent since the scheduler started, 1 min ago."},
		},
		"no sweep yet": {
			func(c *condition) { c.Processes[2].SweptAgo, c.Processes[2].Uptime = -1, 3000 },
			levelGood, "Keeping up: 1.2 s behind.", "", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := well()
			test.change(&c)

			s := judge(c)

			require.Equal(t, test.title, s.Title)
			require.Equal(t, test.level, s.Level)
			require.Contains(t, s.Advice, test.advice)
			var also []string
			for _, f := range s.Also {
				also = append(also, f.Title)
			}
			require.Equal(t, test.also, also)
		})
	}
}

func TestCoalescingIsOfTheLastMinute(t *testing.T) {
	t.Parallel()
	c := condition{Snapshot: sample.Snapshot{Sample: sample.Sample{At: 100_000}}, History: []sample.Sample{
		{At: 30_000, Writes: 1e9, Rows: 1}, {At: 50_000, Writes: 30, Rows: 2}, {At: 100_000, Writes: 20, Rows: 3},
	}}
	require.InDelta(t, 10, c.coalescing(), 0)
	require.Zero(t, condition{}.coalescing())
}

func TestRememberIsBoundAndFollowsTheClock(t *testing.T) {
	t.Parallel()
	var history []sample.Sample
	for i := range int64(2 * sample.Kept) {
		history = remember(history, sample.Sample{At: i * 500}) // twice as many as there should be
	}
	require.Len(t, history, sample.Kept)
	older := history[:10]
	history = remember(history, sample.Sample{At: history[9].At + 1, Dirty: 7}) // the clock was set back
	require.Len(t, history, 11)
	require.EqualValues(t, 7, history[10].Dirty)
	history = remember(history, sample.Sample{At: 1e9})
	require.Len(t, history, 1, "what is older than 15 minutes is gone")
	require.Len(t, older, 10)
}

func TestALineHasAGapWhereThereAreNoSamples(t *testing.T) {
	t.Parallel()
	c := condition{Snapshot: sample.Snapshot{Sample: sample.Sample{At: 1_000_000}}, History: []sample.Sample{
		{At: 990_000, LagP50: 50}, {At: 991_000, LagP50: 100}, {At: 992_000, LagP50: -1}, {At: 1_000_000, LagP50: 0},
	}}
	require.Equal(t, "M890.0 100.0L891.0 0.0M900.0 200.0", path(c, func(s sample.Sample) float64 { return float64(s.LagP50) }, 100))
}

func TestCeilingIsRound(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]float64{0: 10, 10: 10, 11: 20, 511: 600, 2001: 3000, 98000: 100000} {
		require.InDelta(t, want, ceiling(value, "keys"), 0)
	}
}

// summary is what /shards says of the given frame.
func summary(t *testing.T, f *frame) string {
	t.Helper()
	p := &shardsPage{page: newPage(&shared{}, "/shards", "Shards", "shards.html")}
	text, err := p.part("summary", p.data(f))
	require.NoError(t, err)
	return text
}

// sharded is a frame with so many dirty keys in each shard.
func sharded(dead int64, dirty ...int64) *frame {
	f := &frame{condition: well()}
	f.Dirty, f.Dead = 0, dead
	for _, n := range dirty {
		f.Dirty += n
		var b cache.ShardBacklog
		b.Dirty = n
		f.Shards = append(f.Shards, b)
	}
	return f
}

func TestTheSummaryOfShardsDoesNotForgetDeadLetters(t *testing.T) {
	t.Parallel()
	require.Contains(t, summary(t, sharded(0, 0, 0)), "Postgres has everything.")
	require.Contains(t, summary(t, sharded(1, 0, 0)), "Postgres has everything but 1 dead letter.")
}

func TestAShardThatDoesNotAnswerIsNotShownAsEmpty(t *testing.T) {
	t.Parallel()
	f := sharded(0, 0, 5)
	f.Shards[0].Unknown, f.Away = true, 1
	require.Contains(t, summary(t, f), "1 shard does not answer.</strong> The others have 5 dirty keys and 0 dead letters.")
	p := &shardsPage{page: newPage(&shared{}, "/shards", "Shards", "shards.html")}
	rows, err := p.part("rows", p.data(f))
	require.NoError(t, err)
	require.Contains(t, rows, `<tr><th scope="row">00</th><td colspan="4" class="bad">does not answer</td></tr>`)
	require.Contains(t, rows, `<tr><th scope="row">01</th><td class="num">5</td>`)
	heat, err := p.part("heat", p.data(f))
	require.NoError(t, err)
	require.Contains(t, heat, "Shard 00: does not answer")
	c := f.condition
	require.Equal(t, "without 1 shard that does not answer", tiles(c, c.fleet())[3].Note)
}

func TestWhatNobodyCouldSayIsNotKnown(t *testing.T) {
	t.Parallel()
	c := well()
	c.Away, c.Unread, c.Processes = 21, true, nil
	c.Writes, c.Rows, c.Rejected, c.LagP50, c.LagP99 = -1, -1, -1, -1, -1
	f := c.fleet()
	for _, shown := range tiles(c, f) {
		switch shown.Label {
		case "Writes", "Rejected":
			require.Equal(t, "the apis could not say", shown.Note)
		case "Rows", "Coalescing", "Sync lag":
			require.Equal(t, tile{Label: shown.Label, Value: "–", Note: "the workers could not say"}, shown)
		}
	}
	require.Equal(t, [][2]string{{"For", "–"}, {"Reached by", "–"}, {"Rows taken", "–"}}, postgresFacts(c, f).Pairs)
	require.Equal(t, [][2]string{{"Last one sent", "–"}, {"Every", "–"}, {"Flush interval", "–"}}, sweepFacts(c, f).Pairs)
	c.Unread, c.Refusal = false, "MISCONF"
	require.Empty(t, flow(c, c.fleet()).Advice, "it refuses still, and not until just now")
	c = well()
	require.Equal(t, [][2]string{{"Last one sent", "2.0 s ago"}, {"Every", "5.0 s"}, {"Flush interval", "1.0 s"}}, sweepFacts(c, c.fleet()).Pairs)
}

func TestWhyKeysWaitIsNotSaidWhereItIsNotKnown(t *testing.T) {
	t.Parallel()
	c := well()
	c.Retrying = 5
	require.Contains(t, aside(c)[0].Advice, "become dead letters")
	c.Unread = true
	require.Contains(t, aside(c)[0].Advice, "not known now")
	require.NotContains(t, aside(c)[0].Advice, "dead letters")
	c.Unread, c.Hindered = false, 5
	require.Len(t, aside(c), 1)
	require.Contains(t, aside(c)[0].Advice, "pg_stat_activity")
}

func TestTheTileOfDirtyKeysSaysThatTheLimitIsForDeadLettersToo(t *testing.T) {
	t.Parallel()
	c := well()
	require.Equal(t, "of 1,000,000 that may be, dead letters included", tiles(c, c.fleet())[3].Note)
}

func TestALagBeyondTheLastBoundIsNotSaidToBeExact(t *testing.T) {
	t.Parallel()
	lag := func(p50, p99 int64) tile {
		c := well()
		c.LagP50, c.LagP99, c.LagBound = p50, p99, 1_800_000
		return tiles(c, c.fleet())[5]
	}
	require.Equal(t, tile{Label: "Sync lag", Value: "0.9 s", Note: "half of all; 99 of 100 within 1.2 s"}, lag(900, 1200))
	require.Equal(t, tile{Label: "Sync lag", Value: "0.9 s", Note: "half of all; the slowest of 100 over 30 min"}, lag(900, 1_800_000))
	require.Equal(t, "over 30 min", lag(1_800_000, 1_800_000).Value)
}

func TestAShardStandsOutOnlyIfChanceDoesNotExplainIt(t *testing.T) {
	t.Parallel()
	require.Contains(t, summary(t, sharded(0, 1, 2, 9, 0)), "None stands out.")
	require.Contains(t, summary(t, sharded(0, 100, 220, 100, 100)), "None stands out.")
	require.Contains(t, summary(t, sharded(0, 100, 500, 100, 100)), "shard 01 has the most.")
}

func TestPostgresIsUpSinceTheLastWorkerReachedIt(t *testing.T) {
	t.Parallel()
	c := well()
	late := process(pulse.RoleWorker)
	late.PostgresFor = 5000
	c.Processes = append(c.Processes, late)
	require.Equal(t, 5*time.Second, c.fleet().PostgresFor)
	for i := range c.Processes {
		c.Processes[i].Postgres = pulse.PostgresDown
	}
	require.Equal(t, time.Hour, c.fleet().PostgresFor, "and down since the first one noticed")
}
