package doctor

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
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

// String is the finding in one line.
func (f Finding) String() string {
	s := f.Name + ": " + f.Detail
	if f.Fix != "" {
		s += ": " + f.Fix
	}
	return s
}

// Options say what to check.
type Options struct {
	// Redis is required.
	Redis redis.UniversalClient
	// Ping says whether this Redis serves counters: cache.Cache.Ping. A cluster that is down answers PING. Nil: PING is all.
	Ping func(ctx context.Context) error
	// Layout compares the process's settings with those that this Redis was first used with: cache.Cache.CheckMeta. Its
	// *cache.SettingsError is a refusal. Nil: not checked.
	Layout func(ctx context.Context) error
	// Postgres is what to ask; nil: Postgres is not checked.
	Postgres Postgres
}

// checkTimeout bounds all checks of one server. It is longer than a client's own time-out for one connection.
const checkTimeout = 5 * time.Second

// Run checks both servers side by side and returns the findings, those of Redis first. It blocks for at most about 5 s.
func Run(ctx context.Context, options Options) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()

	postgres := make(chan []Finding, 1)
	go func() { postgres <- checkPostgres(ctx, options.Postgres) }()
	findings := checkRedis(ctx, options)
	return append(findings, <-postgres...)
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

// oneLine makes the text of an error fit for a table.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
