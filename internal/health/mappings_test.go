package health

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestJudgementsOfMappings(t *testing.T) {
	t.Parallel()
	break1 := func(c *Snapshot) {
		worker(c).BrokenMappings = map[string]string{"likes": `column "likes" does not exist`}
	}
	same := func(c *Snapshot) {
		for i := range c.Processes {
			c.Processes[i].Host, c.Processes[i].PID = "h"+strconv.Itoa(i), 10+i
			if c.Processes[i].Role != RoleScheduler { // which reads no mappings
				c.Processes[i].Settings.Mappings = "a1"
			}
		}
	}
	requireJudgements(t, map[string]judgement{
		"a broken mapping": {
			break1, Bad, "1 mapping is broken: likes.", "all others are flushed. `afterwrite mappings check` says what to change.",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"broken mappings, whose deferred counters are no locked rows": {
			func(c *Snapshot) {
				break1(c)
				for _, name := range []string{"b", "c", "a", "likes"} {
					worker(c).BrokenMappings[name] = "no"
				}
				c.Deferred, c.Retrying = 3, 3
			},
			Bad, "4 mappings are broken: a, b, c and 1 more.", "",
			[]string{"Keeping up: 1.2 s behind."},
		},
		"a mapping that was broken for a worker that is gone": {
			func(c *Snapshot) {
				gone := process(RoleWorker)
				gone.Age, gone.BrokenMappings = time.Minute, map[string]string{"likes": "no"}
				c.Processes = append(c.Processes, gone)
			},
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
		"the same mappings": {same, Good, "Keeping up: 1.2 s behind.", "", nil},
		"an api without mappings": {
			func(c *Snapshot) { same(c); c.Processes[0].Settings.Mappings = "" },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Not all processes have the same mappings; different from the worker: api h0 · 10 (none)."},
		},
		"a worker without mappings": {
			func(c *Snapshot) { same(c); worker(c).Settings.Mappings = "" },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Not all processes have the same mappings; different from the worker (none): api h0 · 10, dashboard h1 · 11."},
		},
		"one of three workers and the dashboard with others": {
			func(c *Snapshot) {
				c.Processes = append(c.Processes, process(RoleWorker), process(RoleWorker))
				same(c)
				c.Processes[1].Settings.Mappings, c.Processes[5].Settings.Mappings = "b2", "b2"
			},
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Not all processes have the same mappings; different from most workers: dashboard h1 · 11, worker h5 · 15."},
		},
		"others, and a worker that is gone": {
			func(c *Snapshot) {
				same(c)
				gone := process(RoleWorker)
				gone.Age = time.Minute
				c.Processes = append(c.Processes, gone)
			},
			Good, "Keeping up: 1.2 s behind.", "", nil,
		},
	})
	c := well()
	break1(&c)
	require.Equal(t, Behind, c.Judge().Verdict(), "its counters do not reach postgres")
	c = well()
	same(&c)
	c.Processes[0].Settings.Mappings = ""
	require.Equal(t, KeepsUp, c.Judge().Verdict())
	require.Contains(t, c.Judge().Also[0].Advice, "Set AFTERWRITE_MAPPINGS to the same file for every api, worker and dashboard")
}

func TestJudgementsOfHistories(t *testing.T) {
	t.Parallel()
	same := func(c *Snapshot) {
		for i := range c.Processes {
			c.Processes[i].Host, c.Processes[i].PID = "h"+strconv.Itoa(i), 10+i
			if c.Processes[i].Role != RoleScheduler {
				c.Processes[i].Settings.History = "a1"
			}
		}
	}
	requireJudgements(t, map[string]judgement{
		"the same histories": {same, Good, "Keeping up: 1.2 s behind.", "", nil},
		"an api without histories": {
			func(c *Snapshot) { same(c); c.Processes[0].Settings.History = "" },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Not all processes have the same AFTERWRITE_HISTORY; different from the worker: api h0 · 10 (none)."},
		},
		"a worker with others": {
			func(c *Snapshot) { same(c); worker(c).Settings.History = "b2" },
			Warn, "Keeping up: 1.2 s behind.", "",
			[]string{"Not all processes have the same AFTERWRITE_HISTORY; different from the worker: api h0 · 10, dashboard h1 · 11."},
		},
	})
}

func TestManyProcessesWithOtherMappingsAreNotAllNamed(t *testing.T) {
	t.Parallel()
	c := well()
	worker(&c).Settings.Mappings = "a1"
	for range 400 {
		c.Processes = append(c.Processes, process(RoleAPI))
	}
	require.Regexp(t, `different from the worker: api  · 0 \(none\), dashboard  · 0 \(none\), api  · 0 \(none\) and 399 more\.$`, c.Judge().Also[0].Sentence)
}

func TestMappedColumnsPerSecondAddUp(t *testing.T) {
	t.Parallel()
	r := newRates()
	one := func(id string, at, likes, views int64) Heartbeat {
		p := beat(id, at, 0, 0)
		p.Role, p.Counts.Mappings = RoleWorker, map[string]MappingCounts{"likes": {Rows: likes, Missing: 1}, "views": {Rows: views, Refused: 2}}
		return p
	}
	add(r, one("a", 1000, 500, 0), one("b", 1000, 0, 0))
	s := add(r, one("a", 3000, 520, 0), one("b", 3000, 4, 0))
	require.Equal(t, map[string]float64{"likes": 12, "views": 0}, s.Traffic.Mapped)
	s.Processes = []Heartbeat{one("a", 3000, 520, 0), one("b", 3000, 4, 7)}
	require.Equal(t, map[string]MappingCounts{"likes": {524, 2, 0}, "views": {7, 0, 0 + 4}}, s.WorkerMappings())
	s.Processes[0].Age = time.Minute
	require.Equal(t, map[string]MappingCounts{"likes": {4, 1, 0}, "views": {7, 0, 2}}, s.WorkerMappings(), "its counts begin anew")
}

func TestHeartbeatHasTheCountsOfMappings(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	rows := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "afterwrite_mapping_rows_total", Help: "Columns."}, []string{"mapping"})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "afterwrite_mapping_refused_total", Help: "Refused."}, []string{"mapping"})
	b.options.Counted.(*prometheus.Registry).MustRegister(rows, refused)
	rows.WithLabelValues("likes").Add(3)
	rows.WithLabelValues("views")
	refused.WithLabelValues("likes").Add(2)
	b.options.Role, b.options.Settings.Mappings = RoleWorker, "a1b2"
	b.options.BrokenMappings = func() map[string]string { return map[string]string{"views": strings.Repeat("ü", 500)} }
	b.run(t)

	localtest.Eventually(t, patience, func() (bool, string) { return len(b.read(t)) == 1, "no heartbeat" })
	p := b.read(t)[0]
	require.Equal(t, map[string]MappingCounts{"likes": {Rows: 3, Refused: 2}, "views": {}}, p.Counts.Mappings)
	require.Equal(t, "a1b2", p.Settings.Mappings)
	require.Equal(t, map[string]string{"views": strings.Repeat("ü", 200) + "…"}, p.BrokenMappings)
}
