package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// Status is how bad a finding is.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Refused Status = "refused" // afterwrite must not, or cannot, run on this
)

// Finding is the result of one check.
type Finding struct {
	// Name of the check; it begins with the server that it is about: "redis memory policy".
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail is what was found. It holds no passwords.
	Detail string `json:"detail"`
	// Fix is what to do about it; empty when there is nothing to do.
	Fix string `json:"fix,omitempty"`
}

// String returns the finding in one line.
func (f Finding) String() string {
	s := f.Name + ": " + f.Detail
	if f.Fix != "" {
		s += ": " + f.Fix
	}
	return s
}

// unchecked is the finding of a check that the server does not answer: managed services forbid some commands.
func unchecked(name string, err error) Finding {
	return Finding{Name: name, Status: Warning, Detail: "could not check (" + oneLine(err) + ")"}
}

// oneLine makes the text of an error fit for a table.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// Checks find out whether Redis and Postgres are fit for afterwrite: what would lose counters is refused, what could is a
// warning. Each finding says what to do about it.
type Checks struct {
	// Redis is required.
	Redis redis.UniversalClient
	// Cache tells whether Redis serves counters (a cluster that is down answers PING), and whether they were stored with the
	// settings of this process. Nil: neither is checked.
	Cache *cache.Cache
	// Postgres is nil where the process does not use it.
	Postgres Postgres
}

// checkTimeout bounds all checks of one server. It is longer than a client's own time-out for one connection.
const checkTimeout = 5 * time.Second

// Run checks both servers at once and returns the findings, those of Redis first. It changes nothing, and blocks for at most
// about 5 s.
func (c Checks) Run(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()

	postgres := make(chan []Finding, 1)
	go func() { postgres <- checkPostgres(ctx, c.Postgres) }()
	findings := c.checkRedis(ctx)
	return append(findings, <-postgres...)
}

// atStart runs the checks for a process that is about to serve, and notes its settings in a Redis that is new. It logs
// warnings. It returns an error, in one line that says what to do, when Redis is unfit, since that would lose counters. An
// unfit or absent Postgres is logged only: writes do not wait for it, and it may come back. It blocks for about 10 s at most.
func (c Checks) atStart(ctx context.Context, log *slog.Logger) error {
	// Of two processes with different settings that start at the same moment on a new Redis, only one may go on. Run finds
	// what is wrong with the settings.
	noting, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := c.Cache.CheckMeta(noting); err != nil {
		log.Debug("settings not noted", "error", err)
	}

	var refusals []string
	for _, f := range c.Run(ctx) {
		switch {
		case f.Status == OK:
			log.Debug("start-up check", "check", f.Name, "found", f.Detail)
		case f.Status == Refused && strings.HasPrefix(f.Name, "redis"):
			refusals = append(refusals, f.String())
		default:
			log.Warn("start-up check", "check", f.Name, "found", f.Detail, "fix", f.Fix)
		}
	}
	if len(refusals) > 0 {
		return fmt.Errorf("refusing to start: %s", strings.Join(refusals, "; "))
	}
	return nil
}

// Worst returns the worst status among the findings.
func Worst(findings []Finding) Status {
	worst := OK
	for _, f := range findings {
		if f.Status == Refused || worst == OK {
			worst = f.Status
		}
	}
	return worst
}

// Print writes the findings as a table for people: one line each, what to do about it below.
func Print(w io.Writer, findings []Finding) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) // it keeps its error for Flush
	fmt.Fprintln(table, "STATUS\tCHECK\tFOUND")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Status, f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(table, "\t\t-> %s\n", f.Fix)
		}
	}
	return table.Flush()
}

// maxSkew is how far clocks may be apart. Waiting times and epochs follow Redis's clock, the times of tasks that of the
// processes, so a difference shows as sync lag and delays tasks. Below a second nobody notices.
const maxSkew = time.Second

// checkClock judges the time that a server told between before and after of our own clock.
func checkClock(name string, before, there, after time.Time) Finding {
	// The server answered at some moment in between, most likely in the middle. A difference of less than half the round
	// trip may be none.
	half := after.Sub(before) / 2
	skew := there.Sub(before.Add(half)).Round(time.Millisecond)
	f := Finding{Name: name, Status: OK, Detail: fmt.Sprintf("%s ahead of this machine's (±%s)", skew, half.Round(time.Millisecond))}
	if skew < 0 {
		f.Detail = fmt.Sprintf("%s behind this machine's (±%s)", -skew, half.Round(time.Millisecond))
	}
	if skew.Abs()-half > maxSkew {
		f.Status, f.Fix = Warning, "synchronize the clocks of both machines (NTP)"
	}
	return f
}
