// Package migrations has the Postgres schema as numbered SQL files in goose's format, embedded into the binary. internal/store applies
// them.
//
// Statements of a released file are never changed: a change is a new file with the next number. Names are not qualified: each file runs
// in a transaction whose search_path is the schema of the installation, so no file may use NO TRANSACTION.
package migrations

import "embed"

// FS has the numbered SQL files.
//
//go:embed *.sql
var FS embed.FS
