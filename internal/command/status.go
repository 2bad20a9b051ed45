package command

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/process"
)

// exitUnknown is the exit status of `status` if it cannot tell whether Postgres keeps up.
const exitUnknown = 2

// maxStatusWatch bounds --for: a trend is over 15 s, so a longer watch tells nothing more.
const maxStatusWatch = time.Minute

type statusCommand struct {
	JSON bool          `help:"Print a JSON object." name:"json"`
	For  time.Duration `default:"4s"                help:"How long to take samples, one a second."`
}

// Validate implements kong's check of a command line.
func (c statusCommand) Validate() error {
	if c.For < 0 || c.For > maxStatusWatch {
		return fmt.Errorf("--for must be 0 to %[2]s; it is %[1]s", c.For, maxStatusWatch)
	}
	return nil
}

// Run implements the command. Its error carries the exit status.
func (c statusCommand) Run(w *world) error {
	snapshot, err := c.watch(w)
	if err != nil {
		return &exitError{err, exitUnknown}
	}
	report := snapshot.Judge()
	if c.JSON {
		err = printJSON(w.stdout, newStatusReport(snapshot, report))
	} else {
		err = printStatus(w, snapshot, report)
	}
	if err != nil {
		return &exitError{err, exitUnknown}
	}
	switch report.Verdict() {
	case health.KeepsUp:
		return nil
	case health.Behind:
		return &exitError{errors.New("postgres does not keep up: see above"), exitFailure}
	case health.Unknown:
	}
	return &exitError{errors.New("it is not known whether postgres keeps up: see above"), exitUnknown}
}

// watch takes samples, as the dashboard does: rates need two heartbeats of each process, and a trend needs 3 s.
func (c statusCommand) watch(w *world) (health.Snapshot, error) {
	servers, err := w.open("status", process.Pools{Redis: oneByOne.Redis})
	if err != nil {
		return health.Snapshot{}, err
	}
	defer servers.Close()
	monitor := health.NewMonitor(servers.Cache, servers.Redis, servers.Log)
	end := time.Now().Add(c.For)
	for {
		snapshot, _ := monitor.Next(w.ctx)
		if !snapshot.Starting && time.Now().Add(health.SampleEvery).After(end) {
			return snapshot, nil
		}
		select {
		case <-w.ctx.Done():
			return health.Snapshot{}, w.ctx.Err()
		case <-time.After(health.SampleEvery):
		}
	}
}

// statusReport is what --json prints. Its names are stable; docs/operations.md has them.
type statusReport struct {
	KeepingUp health.Verdict  `json:"keeping_up"` // yes, no or unknown
	At        time.Time       `json:"at"`
	Backlog   statusBacklog   `json:"backlog"`
	Rates     statusRates     `json:"rates"`
	SyncLag   *statusLag      `json:"sync_lag_seconds"` // null: nothing was flushed lately
	Processes []statusProcess `json:"processes"`
	Findings  []statusFinding `json:"findings"` // the most important first
}

type statusBacklog struct {
	Dirty    int64   `json:"dirty"`
	Dead     int64   `json:"dead"`
	Retrying int64   `json:"retrying"`
	Oldest   float64 `json:"oldest_seconds"`
}

// statusRates are per second; null if not known.
type statusRates struct {
	Writes *float64 `json:"writes"`
	Rows   *float64 `json:"rows"`
	Failed *float64 `json:"failed_requests"`
}

type statusLag struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

type statusProcess struct {
	Role     string  `json:"role"`
	Host     string  `json:"host"`
	PID      int     `json:"pid"`
	Version  string  `json:"version"`
	Alive    bool    `json:"alive"`
	Age      float64 `json:"heartbeat_age_seconds"`
	Postgres string  `json:"postgres,omitempty"` // up or down
}

type statusFinding struct {
	Code     string       `json:"code"`
	Level    health.Level `json:"level"` // good, warn or bad
	Sentence string       `json:"sentence"`
	Advice   string       `json:"advice,omitempty"`
}

func newStatusReport(s health.Snapshot, r health.Report) statusReport {
	report := statusReport{
		KeepingUp: r.Verdict(), At: time.UnixMilli(s.At).UTC(),
		Backlog:   statusBacklog{Dirty: s.Dirty, Dead: s.Dead, Retrying: s.Retrying, Oldest: seconds(s.Oldest)},
		Rates:     statusRates{Writes: known(s.Writes), Rows: known(s.Rows), Failed: known(s.Rejected)},
		Processes: []statusProcess{}, Findings: []statusFinding{},
	}
	if s.LagP50 >= 0 {
		report.SyncLag = &statusLag{P50: seconds(s.LagP50), P99: seconds(s.LagP99)}
	}
	for _, p := range s.Processes {
		report.Processes = append(report.Processes, statusProcess{
			Role: p.Role, Host: p.Host, PID: p.PID, Version: p.Version, Alive: p.Alive(), Age: p.Age.Seconds(), Postgres: p.Postgres,
		})
	}
	for _, f := range r.Findings() {
		report.Findings = append(report.Findings, statusFinding{f.Code, f.Level, f.Sentence, f.Advice})
	}
	return report
}

func seconds(ms int64) float64 { return health.Milliseconds(ms).Seconds() }

// known returns nil for the -1 of a Sample.
func known(rate float64) *float64 {
	if rate < 0 {
		return nil
	}
	return &rate
}

func printStatus(w *world, s health.Snapshot, r health.Report) error {
	printFinding(w, "", r.Finding)
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // keeps its error for Flush
	fmt.Fprintf(table, "\nBacklog\t%s, the oldest for %s\n",
		health.Count(s.Dirty, "dirty key", "dirty keys"), health.Age(health.Milliseconds(s.Oldest)))
	fmt.Fprintf(table, "Dead letters\t%s\n", health.Number(s.Dead))
	fmt.Fprintf(table, "Writes\t%s\n", rateText(s.Writes))
	fmt.Fprintf(table, "Rows to Postgres\t%s\n", rateText(s.Rows))
	fmt.Fprintf(table, "Failed requests\t%s\n", rateText(s.Rejected))
	if s.LagP50 >= 0 {
		fmt.Fprintf(table, "Sync lag\thalf of all within %s, 99 of 100 within %s\n",
			health.Age(health.Milliseconds(s.LagP50)), health.Age(health.Milliseconds(s.LagP99)))
	}
	alive := s.Fleet().Alive
	fmt.Fprintf(table, "Processes\tapi %d, worker %d, scheduler %d, dashboard %d\n",
		alive[health.RoleAPI], alive[health.RoleWorker], alive[health.RoleScheduler], alive[health.RoleDashboard])
	if err := table.Flush(); err != nil {
		return err
	}
	for _, f := range r.Also {
		fmt.Fprintln(w.stdout)
		printFinding(w, string(f.Level)+": ", f)
	}
	return nil
}

func printFinding(w *world, level string, f health.Finding) {
	fmt.Fprintln(w.stdout, level+f.Sentence)
	if f.Advice != "" {
		fmt.Fprintln(w.stdout, f.Advice)
	}
}

func rateText(perSecond float64) string {
	if perSecond < 0 {
		return "not known"
	}
	return health.Rate(perSecond) + "/s"
}
