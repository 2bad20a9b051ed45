package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/tasks"
)

func TestUnknownReasonOfRetriesIsNotGuessed(t *testing.T) {
	t.Parallel()
	advice := func(change func(c *Snapshot)) string {
		c := well()
		c.Retrying = 5
		change(&c)
		var of []string
		for _, f := range c.Judge().Findings() {
			if f.Code == "retries" || f.Code == "rows_locked" {
				of = append(of, f.Advice)
			}
		}
		require.Len(t, of, 1)
		return of[0]
	}
	require.Contains(t, advice(func(*Snapshot) {}), "become dead letters")
	unknown := advice(func(c *Snapshot) { c.Unread = true })
	require.Contains(t, unknown, "unknown at the moment")
	require.NotContains(t, unknown, "dead letters")
	require.Contains(t, advice(func(c *Snapshot) { c.Deferred = 5 }), "pg_stat_activity")
}

// The advice of workers_unknown would describe the current refusal as past.
func TestUnknownWorkersHaveNoAdviceWhileRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	c := well()
	c.Refusal, c.Redis.Nodes = "MISCONF", 3
	silence(&c)
	found := c.Judge().Findings()
	require.Equal(t, "workers_unknown", found[1].Code)
	require.Empty(t, found[1].Advice)
}

func TestVerdictTellsWhetherPostgresKeepsUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*Snapshot)
		want   Verdict
	}{
		"well":                    {func(*Snapshot) {}, KeepsUp},
		"dead letters":            {func(c *Snapshot) { c.Dead = 3 }, KeepsUp},
		"a full redis":            {func(c *Snapshot) { c.Redis.Used = 95 }, KeepsUp},
		"no worker":               {func(c *Snapshot) { c.Processes[3].Age = time.Minute }, Behind},
		"catching up":             {func(c *Snapshot) { c.Dirty, c.Oldest = 9000, 45_000; growing(c, 12000); moving(c, 5000) }, Behind},
		"paused":                  {func(c *Snapshot) { c.Paused = []string{tasks.QueueFlush} }, Behind},
		"redis refuses writes":    {func(c *Snapshot) { c.Refusal = "MISCONF"; silence(c) }, Behind},
		"nobody can say anything": {func(c *Snapshot) { c.Missed = true; silence(c) }, Unknown},
		"redis is down":           {func(c *Snapshot) { c.Failed = time.Second }, Unknown},
		"the start":               {func(c *Snapshot) { *c = Snapshot{Starting: true} }, Unknown},
	} {
		c := well()
		test.change(&c)
		require.Equal(t, test.want, c.Judge().Verdict(), name)
	}
}

func TestNewsOfAWarningIsTheWarning(t *testing.T) {
	t.Parallel()
	news := func(change func(c *Snapshot)) string {
		c := well()
		change(&c)
		return c.Judge().News()
	}
	require.Equal(t, "Keeping up: 1.2 s behind.", news(func(*Snapshot) {}))
	require.Equal(t, "1 dead letter needs attention.", news(func(c *Snapshot) { c.Dead = 1 }))
	require.Equal(t, "1 dead letter needs attention.", news(func(c *Snapshot) { c.Dead, c.Dirty, c.Oldest = 1, 0, 0 }))
	require.Equal(t, "No scheduler is running.", news(func(c *Snapshot) { c.Processes[2].Age = time.Minute }))
	require.Equal(t, "1 of 2 workers cannot reach Postgres.", news(func(c *Snapshot) {
		down := process(RoleWorker)
		down.Postgres, c.Dead = PostgresDown, 1
		c.Processes = append(c.Processes, down)
	}), "a headline that is a warning itself")
	require.Equal(t, "Redis has not answered for 5.0 s.", news(func(c *Snapshot) { c.Failed = 5 * time.Second }))
}

func TestTextsHaveNoPlaceholdersLeft(t *testing.T) {
	t.Parallel()
	c := well()
	texts := (&facts{Snapshot: c, Fleet: c.Fleet()}).texts()
	for _, r := range rules {
		require.NotRegexp(t, `\{[a-z ]+\}`, texts.Replace(r.sentence)+texts.Replace(r.advice), r.code)
		require.Regexp(t, `^[a-z_]+$`, r.code)
	}
}

func TestPostgresIsUpSinceTheLastWorkerReachedIt(t *testing.T) {
	t.Parallel()
	c := well()
	late := process(RoleWorker)
	late.PostgresFor = 5000
	c.Processes = append(c.Processes, late)
	require.Equal(t, 5*time.Second, c.Fleet().PostgresFor)
	for i := range c.Processes {
		c.Processes[i].Postgres = PostgresDown
	}
	require.Equal(t, time.Hour, c.Fleet().PostgresFor, "and down since the first one noticed")
}
