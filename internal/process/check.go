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
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// Status is the severity of a finding.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Refused Status = "refused" // afterwrite must not, or cannot, run like this
)

// Finding is the result of one check.
type Finding struct {
	// Name of the check, which begins with the server: "redis memory policy".
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail describes the result. It contains no passwords.
	Detail string `json:"detail"`
	// Fix tells the operator what to do; empty if there is nothing to do.
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

// unchecked returns the finding for a check that the server does not answer. Managed services forbid some commands.
func unchecked(name string, err error) Finding {
	return Finding{Name: name, Status: Warning, Detail: "could not check (" + oneLine(err) + ")"}
}

// oneLine returns the text of an error in one line, for a table.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// Checks examine whether Redis and Postgres are fit for afterwrite. A setting that would lose counters is refused. One that may lose
// counters is a warning.
type Checks struct {
	// Redis is required.
	Redis redis.UniversalClient
	// Cache checks whether Redis serves counters (a cluster that is down answers PING), and whether they were stored with the settings of
	// this process. Nil: neither is checked.
	Cache *cache.Cache
	// Postgres is nil if the process does not use it.
	Postgres Postgres
	// Mappings are compared with the tables of Postgres. Nil: there are none.
	Mappings *mapping.Mappings
	// Durability is AFTERWRITE_DURABILITY, and WaitReplicas AFTERWRITE_WAIT_REPLICAS: the checks say what a failure can lose. If it is
	// empty, they do not.
	Durability   string
	WaitReplicas int
	// Failover is what promotes replicas of this Redis: "Sentinel", "Cluster", or "".
	Failover string
	// RequireDurability makes a server that does not support Durability an error at the start of a process.
	RequireDurability bool
	// RequireMappings makes a mapping that does not fit its table an error at the start of a process.
	RequireMappings bool
}

// checkTimeout bounds all checks of one server. It is longer than a client's connection timeout.
const checkTimeout = 5 * time.Second

// Run checks both servers concurrently, and returns the findings, Redis first. It changes nothing, and blocks for at most 5 s.
func (c Checks) Run(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()

	postgres := make(chan []Finding, 1)
	go func() { postgres <- checkPostgres(ctx, c.Postgres, c.Mappings) }()
	findings := c.checkRedis(ctx)
	return append(findings, <-postgres...)
}

// atStart runs the checks for a process that is about to serve, and stores its settings in a new Redis. It logs warnings. If Redis is
// unfit, it returns an error of one line, because counters would be lost. An unfit Postgres is only logged, because writes do not wait for
// it, and it may recover. But a mapping that does not fit the tables of a Postgres that answers is an error too, if RequireMappings is set,
// and a durability that Redis does not support, if RequireDurability is set.
// It blocks for at most 10 s.
func (c Checks) atStart(ctx context.Context, log *slog.Logger) error {
	// If two processes with different settings start at the same moment on a new Redis, only one may continue. Run reports the mismatch.
	meta, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := c.Cache.CheckMeta(meta); err != nil {
		log.Debug("the settings were not stored in redis", "error", err)
	}

	var refusals []string
	for _, f := range c.Run(ctx) {
		switch {
		case f.Status == OK:
			log.Debug("start-up check", "check", f.Name, "found", f.Detail)
		case f.Status == Refused && c.mustBeFit(f.Name):
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

// mustBeFit reports whether a process must not start if the check of this name is refused.
func (c Checks) mustBeFit(name string) bool {
	return strings.HasPrefix(name, "redis") || c.RequireMappings && strings.HasPrefix(name, mappingCheck) ||
		c.RequireDurability && strings.HasPrefix(name, durabilityCheck)
}

// Worst returns the worst status of the findings.
func Worst(findings []Finding) Status {
	worst := OK
	for _, f := range findings {
		if f.Status == Refused || worst == OK {
			worst = f.Status
		}
	}
	return worst
}

// Print writes the findings as a table for people: one line for each, with its fix below.
func Print(w io.Writer, findings []Finding) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintln(table, "STATUS\tCHECK\tFOUND")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Status, f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(table, "\t\t-> %s\n", f.Fix)
		}
	}
	return table.Flush()
}

// maxSkew is the largest clock difference without a warning. Epochs and tasks use Redis's clock, so a difference falsifies only the times
// in logs and on some pages. A second is not noticeable.
const maxSkew = time.Second

// checkClock judges the time there, which a server returned between before and after by the local clock.
func checkClock(name string, before, there, after time.Time) Finding {
	// The server read its clock at some moment of the round trip, so a difference of up to half of it is uncertain.
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
