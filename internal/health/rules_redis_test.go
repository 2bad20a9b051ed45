package health

import (
	"testing"
	"time"
)

// away makes Redis have failed for a duration.
func away(c *Snapshot, d time.Duration) { c.Failed, c.Short = d, d }

func TestJudgementsOfRedis(t *testing.T) {
	t.Parallel()
	requireJudgements(t, map[string]judgement{
		"well": {func(*Snapshot) {}, Good, "Keeping up: 1.2 s behind.", "", nil},
		"idle": {func(c *Snapshot) { c.Dirty, c.Oldest = 0, 0 }, Good, "Keeping up: Postgres has everything.", "", nil},
		"only dead letters": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Dead = 0, 0, 2 },
			Warn, "Keeping up: Postgres has everything but 2 dead letters.", "",
			[]string{"2 dead letters need attention."},
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
		"redis refuses writes, so that heartbeats are lost": {
			func(c *Snapshot) { c.Refusal = "MISCONF"; silence(c) },
			Bad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Which processes run is not known", nil,
		},
		"redis refuses writes, cannot append, and there are dead letters": {
			func(c *Snapshot) { c.Refusal, c.Redis.AOFFailing, c.Dead = "MISCONF", true, 1; silence(c) },
			Bad, "Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "Do not restart it before that",
			[]string{"Redis cannot write its append-only file.", "1 dead letter needs attention."},
		},
		"redis refuses writes while postgres is down": {
			func(c *Snapshot) {
				c.Refusal = "NOREPLICAS"
				worker(c).Postgres = PostgresDown
				silence(c)
			},
			Bad, "Redis refuses writes, since it has too few replicas; 50 keys are waiting.", "min-replicas-to-write",
			[]string{"Postgres was down too, by the last heartbeats of the workers."},
		},
		"redis has just become a replica": {
			func(c *Snapshot) { c.Refusal, c.Redis.Role, c.Short = "READONLY", "slave", 2*time.Second; silence(c) },
			Bad, "Redis fails over: it refuses writes, since it is a replica now; 50 keys are waiting.", "look for the new master", nil,
		},
		"a replicated redis does not answer": {
			func(c *Snapshot) { c.Redis.Replicas = 1; away(c, 12*time.Second) },
			Bad, "A failover of Redis is due: it has not served us for 12 s.", "promote a replica", nil,
		},
		"a replicated redis does not answer for too long": {
			func(c *Snapshot) { c.Redis.Replicas = 1; away(c, time.Minute) },
			Bad, "Redis has not answered for 1 min.", "Writes are refused", nil,
		},
		"a replicated cluster is down": {
			func(c *Snapshot) { c.Redis.Replicas, c.Denial = 3, "CLUSTERDOWN"; away(c, 3*time.Second) },
			Bad, "A failover of Redis is due: it has not served us for 3.0 s.", "cluster-node-timeout", nil,
		},
		"a replicated node of a cluster is away": {
			func(c *Snapshot) {
				c.Redis.Replicas, c.Away, c.Short, c.Unread, c.Processes = 2, 21, 3*time.Second, true, nil
			},
			Bad, "A failover of Redis is due: 21 shards do not answer.", "by itself",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"redis has failed over, and no heartbeat has arrived yet": {
			func(c *Snapshot) { c.Missed, c.Promoted = true, 3*time.Second; silence(c) },
			Warn, "Redis failed over 3.0 s ago; 50 keys are waiting.", "Heartbeats were lost", nil,
		},
		"redis has failed over, and keys are late": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Back, c.Promoted = 300, 65_000, true, 5*time.Second },
			Warn, "Redis failed over 5.0 s ago; 300 keys are waiting.", "whether workers catch up", nil,
		},
		"redis has failed over, and all is well": {
			func(c *Snapshot) { c.Promoted = 30 * time.Second },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Redis failed over 30 s ago."},
		},
		"redis has failed over, and no worker is running": {
			func(c *Snapshot) { c.Promoted = 30 * time.Second; worker(c).Age = time.Minute },
			Bad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"Redis failed over 30 s ago."},
		},
		"redis has become a replica": {
			func(c *Snapshot) { c.Refusal, c.Redis.Role, c.Short = "READONLY", "slave", time.Minute; silence(c) },
			Bad, "Redis refuses writes, since it is a replica; 50 keys are waiting.", "Find out which node is the master", nil,
		},
		"a replica that accepts writes": {
			func(c *Snapshot) { c.Redis.Role = "slave" },
			Bad, "Redis is a replica that accepts writes.", "lost when it syncs",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"redis accepts writes again, and no heartbeat has arrived yet": {
			func(c *Snapshot) { c.Missed, c.Redis.Role = true, "slave"; silence(c) },
			Warn, "Which workers run is not known; 50 keys are waiting.", "until just now", nil,
		},
		"redis accepts writes again, and workers report that postgres is down": {
			func(c *Snapshot) {
				silence(c)
				c.Missed, worker(c).Age, worker(c).Postgres, worker(c).PostgresFor = true, 0, PostgresDown, 60_000
			},
			Bad, "Postgres has been down for 1 min; 50 keys are waiting.", "Start Postgres", nil,
		},
		"redis accepts writes again, and no worker is running": {
			func(c *Snapshot) { silence(c) },
			Bad, "Workers are not running; 50 keys are waiting.", "Start `afterwrite worker`",
			[]string{"No api is running.", "No scheduler is running."},
		},
		"redis is back, and keys are late": {
			func(c *Snapshot) { c.Dirty, c.Oldest, c.Missed, c.Back = 300, 65_000, true, true },
			Warn, "Redis is back; 300 keys are waiting.", "whether workers catch up", nil,
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
		"redis wants a password": {
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
		"the node of a cluster with the heartbeats is down": {
			func(c *Snapshot) { c.Away, c.Unread, c.Processes = 21, true, nil },
			Bad, "21 shards do not answer.", "A node of Redis is away",
			[]string{"Which workers run is not known; 50 keys are waiting."},
		},
		"the node of a cluster with the heartbeats refuses writes": {
			func(c *Snapshot) { c.Refusal, c.Redis.Nodes = "MISCONF", 3; silence(c) },
			Bad, "A node of Redis refuses writes, since it cannot save its data; 50 keys are waiting.", "they report by writing",
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
		"a node that goes down does not look like a shrinking backlog": {
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
	})
}
