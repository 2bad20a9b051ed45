package store

import (
	"strings"

	"github.com/lib/pq"
)

const (
	// DefaultSchema has the tables unless Options.Schema is set.
	DefaultSchema = "afterwrite"

	// publicSchema had the tables before version 0.2.
	publicSchema = "public"

	tableCounters = "counters"
	tableActions  = "counters_actions"
	tableVersions = "counters_migrations" // goose's list of applied migrations
)

// statements are the SQL statements with {schema} replaced. They do not rely on search_path, which a PgBouncer in transaction mode does
// not keep.
type statements struct {
	read, page                          string
	largest, sorted, createTop, dropTop string
	upsert, upsertBriefly, upsertFree   string
	existing, updated                   string
	purge, purgeRecorded                string
	appendRecords, operations, latest   string
	at, checkpoint, earliest            string
	recordPage, historyEnds, cursor     string
	createPartition, dropPartition      string
	beginAction, endAction, listActions string
	applied                             string
}

func newStatements(schema string) statements {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{schema}", pq.QuoteIdentifier(schema)) }
	return statements{
		read: in(readSQL), page: in(pageSQL),
		largest: in(largestSQL), sorted: in(sortedSQL), createTop: in(createTopSQL), dropTop: in(dropTopSQL),
		upsert: in(upsertSQL), upsertBriefly: in(upsertBrieflySQL), upsertFree: in(upsertFreeSQL),
		existing: in(existingSQL), updated: in(updatedSQL),
		purge: in(purgeSQL), purgeRecorded: in(purgeRecordedSQL),
		appendRecords: in(appendSQL), operations: in(operationsSQL), latest: in(latestSQL),
		recordPage: in(recordPageSQL), historyEnds: in(historyEndsSQL), cursor: in(cursorSQL),
		at: in(atSQL), checkpoint: in(checkpointSQL), earliest: in(earliestSQL),
		createPartition: in(createPartitionSQL), dropPartition: in(dropPartitionSQL),
		beginAction: in(beginSQL), endAction: in(endSQL), listActions: in(listSQL),
		applied: in(appliedSQL),
	}
}

// qualified returns the quoted name of a relation in the schema.
func qualified(schema, name string) string {
	return pq.QuoteIdentifier(schema) + "." + pq.QuoteIdentifier(name)
}
