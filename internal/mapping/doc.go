// Package mapping says which counters land in columns of the user's own tables. It reads the file AFTERWRITE_MAPPINGS, finds the mapping of
// a key and the row that it means, and builds the key of a row. It does not use Postgres: package store writes and checks the columns.
//
//	all, err := mapping.Read("mappings.yaml")
//	m, values := all.Match("post:7:likes")        // m.Name is "post-likes", values are ["7"]
//	key, err := m.CounterKey([]string{"7"})       // "post:7:likes"
//
// A key has at most one mapping, and at most one key lands in a column of a row: Parse refuses everything else.
package mapping
