// Package migrations holds the schema of Postgres as numbered SQL files, embedded into the binary. It is the only place
// where the schema is written down; internal/store applies it.
//
// The files are in goose's format. One that has been released is never changed: a change is a new file with the next
// number. Names are not qualified: each file runs in a transaction whose search_path is the schema of the installation, so none may
// say NO TRANSACTION.
package migrations

import "embed"

// FS holds the numbered SQL files.
//
//go:embed *.sql
var FS embed.FS
