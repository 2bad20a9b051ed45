package store

// UpsertSQL returns the statement of Upsert, for the benchmark that measures it alone.
func UpsertSQL() string { return upsertSQL }
