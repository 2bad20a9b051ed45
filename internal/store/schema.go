package store

import (
	"strings"

	"github.com/lib/pq"
)

const (
	// DefaultSchema holds the tables unless another is set.
	DefaultSchema = "afterwrite"

	// publicSchema held them before there was a choice.
	publicSchema = "public"

	tableCounters = "counters"
	tableActions  = "counters_actions"
	tableVersions = "counters_migrations" // goose's, which notes the migrations that the schema has
)

// statements are the SQL statements on our tables. The names of tables are qualified here, where the constants say {schema}: no
// search_path is relied on, since a PgBouncer in transaction mode keeps none.
type statements struct {
	read                                string
	upsert, upsertBriefly, upsertFree   string
	purge                               string
	beginAction, endAction, listActions string
	applied                             string
}

func newStatements(schema string) statements {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{schema}", pq.QuoteIdentifier(schema)) }
	return statements{
		read:   in(readSQL),
		upsert: in(upsertSQL), upsertBriefly: in(upsertBrieflySQL), upsertFree: in(upsertFreeSQL),
		purge:       in(purgeSQL),
		beginAction: in(beginSQL), endAction: in(endSQL), listActions: in(listSQL),
		applied: in(appliedSQL),
	}
}

// qualified is the name of a relation of the schema, quoted.
func qualified(schema, name string) string {
	return pq.QuoteIdentifier(schema) + "." + pq.QuoteIdentifier(name)
}
