package process

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Postgres is the database to check; *store.Store implements it.
type Postgres interface {
	Info(ctx context.Context) (store.Info, error)
	PendingMigrations(ctx context.Context) (int, error)
	MissingGrants(ctx context.Context) ([]string, error)
	CheckMappings(ctx context.Context) ([]store.MappingProblem, error)
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Replica(ctx context.Context) (store.ReplicaInfo, error)
}

const (
	// oldestPostgres is the server_version_num of 12.0, the oldest supported version. Older ones no longer get fixes
	// (https://www.postgresql.org/support/versioning/).
	oldestPostgres = 120000

	undefinedTable = "42P01" // SQLSTATE undefined_table

	fixMigrate = "run `afterwrite migrate`"
)

func checkPostgres(ctx context.Context, postgres Postgres, mappings *mapping.Mappings) []Finding {
	if postgres == nil {
		return nil
	}
	before := time.Now()
	info, err := postgres.Info(ctx)
	after := time.Now()
	if err != nil {
		return []Finding{{
			Name: "postgres", Status: Refused, Detail: "does not answer (" + oneLine(err) + ")",
			Fix: "start it, or correct DATABASE_URL",
		}}
	}
	findings := []Finding{checkServer(info)}
	// The first call includes connecting, which would make the clock comparison less precise.
	if again, err := postgres.Info(ctx); err == nil {
		info, before, after = again, after, time.Now()
	}
	findings = append(findings, checkClock("postgres clock", before, info.Now, after))
	findings = append(findings, checkSchema(ctx, postgres))
	findings = append(findings, checkReplica(ctx, postgres)...)
	return append(findings, checkMappings(ctx, postgres, mappings)...)
}

// checkServer checks the version, and whether the server accepts writes.
func checkServer(info store.Info) Finding {
	f := Finding{Name: "postgres", Status: OK, Detail: "version " + info.Version}
	if info.Address != "" {
		f.Detail += " at " + info.Address
	}
	switch {
	case info.VersionNumber < oldestPostgres:
		f.Status, f.Fix = Refused, "afterwrite needs PostgreSQL 12 or newer: upgrade it"
	case info.InRecovery:
		f.Status, f.Detail = Refused, f.Detail+", a standby, which accepts no writes"
		f.Fix = "set DATABASE_URL to the primary, or list all hosts and add target_session_attrs=read-write"
	case info.ReadOnly:
		f.Status, f.Detail = Refused, f.Detail+", read-only"
		f.Fix = "find out why (default_transaction_read_only, or a full disk)"
	case info.AnyHost:
		f.Status, f.Detail = Warning, f.Detail+", the primary; after a failover, sessions may reach a standby"
		f.Fix = "add target_session_attrs=read-write to DATABASE_URL, which has several hosts"
	}
	return f
}

// checkReplica checks whether the server of AFTERWRITE_DATABASE_READ_URL can serve reads. None is a reason to refuse: the primary serves
// them instead.
func checkReplica(ctx context.Context, postgres Postgres) []Finding {
	info, err := postgres.Replica(ctx)
	if !info.Configured {
		return nil
	}
	f := Finding{
		Name: "postgres standby for reads", Status: Warning,
		Fix: "correct AFTERWRITE_DATABASE_READ_URL; until then, the primary serves all reads",
	}
	switch unfit := info.Unfit(); {
	case err != nil:
		f.Detail = "cannot be compared with the primary (" + oneLine(err) + ")"
	case unfit != "":
		f.Detail = info.Address + ": " + unfit
	default:
		f = Finding{Name: f.Name, Status: OK, Detail: fmt.Sprintf("at %s, %d bytes behind", info.Address, max(0, -info.Ahead))}
	}
	return []Finding{f}
}

// checkSchema checks the grants of the role, reads the table as a flush does, then counts the pending migrations.
func checkSchema(ctx context.Context, postgres Postgres) Finding {
	const name = "postgres schema"
	grants, err := postgres.MissingGrants(ctx)
	switch {
	case err != nil:
		return unchecked(name, err)
	case len(grants) > 0:
		return Finding{
			Name: name, Status: Refused, Detail: "the role in DATABASE_URL lacks rights on the tables",
			Fix: "run as their owner: " + strings.Join(grants, "; "),
		}
	}
	if _, err := postgres.Read(ctx, []counter.Key{"doctor"}); err != nil {
		if pq.As(err, undefinedTable) != nil {
			return Finding{Name: name, Status: Refused, Detail: "there is no table counters", Fix: fixMigrate}
		}
		if store.Classify(err) == store.Operator {
			return Finding{
				Name: name, Status: Refused, Detail: "the table counters cannot be read (" + oneLine(err) + ")",
				Fix: "find out what has changed it since `afterwrite migrate`",
			}
		}
		return unchecked(name, err)
	}
	pending, err := postgres.PendingMigrations(ctx)
	switch {
	case err != nil:
		return unchecked(name, err)
	case pending > 0:
		return Finding{Name: name, Status: Warning, Detail: fmt.Sprintf("%d migrations are pending", pending), Fix: fixMigrate}
	default:
		return Finding{Name: name, Status: OK, Detail: "up to date"}
	}
}

// mappingCheck begins the names of the findings about mappings, which end with the name of the mapping.
const mappingCheck = "postgres mapping "

// checkMappings returns a finding for each problem of a mapping, or one for a mapping without problems.
func checkMappings(ctx context.Context, postgres Postgres, mappings *mapping.Mappings) []Finding {
	if len(mappings.All()) == 0 {
		return nil
	}
	problems, err := postgres.CheckMappings(ctx)
	if err != nil {
		return []Finding{unchecked("postgres mappings", err)}
	}
	var findings []Finding
	for _, m := range mappings.All() {
		name, fit := mappingCheck+m.Name, true
		for _, p := range problems {
			if p.Mapping == m.Name {
				findings = append(findings, Finding{Name: name, Status: Refused, Detail: p.Problem, Fix: p.Fix})
				fit = false
			}
		}
		if fit {
			findings = append(findings, Finding{Name: name, Status: OK, Detail: m.Pattern.String() + " lands in " + m.ColumnName()})
		}
	}
	return findings
}
