package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

var write = flag.Bool("write", false, "write docs/configuration.md instead of comparing it")

const documentPath = "../../docs/configuration.md"

const documentHead = `<!-- Written by "go generate ./internal/config" from the tags in internal/config/config.go. Do not edit. -->
# Configuration

Every process and every command reads its settings from environment variables. An empty variable counts as not set. The help of a
command (` + "`afterwrite api --help`" + `) lists the variables that it reads.

- If a value is not allowed, the process does not start. The error names the variable.
- A variable that begins with AFTERWRITE_ but is not in this table has no effect. Each process and command logs a warning with
  the nearest known name.
- Durations are numbers with a unit: 250ms, 1s, 10m, 24h.

| variable | default | meaning | allowed | since |
| --- | --- | --- | --- | --- |
`

const documentTail = `
"Since" is the first version that reads the variable.

Other variables that are read:

- AFTERWRITE_REDIS_SERVER (the program redis-server) and AFTERWRITE_POSTGRES_BIN (the folder of postgres and initdb), if
  ` + "`afterwrite up`" + ` does not find them
- PGSSLMODE and the other variables of libpq, for settings that are not in DATABASE_URL
- the other variables of OpenTelemetry (OTEL_...)
- NO_COLOR, GOGC and GOMEMLIMIT
`

// document returns the text of docs/configuration.md.
func document() string {
	var b strings.Builder
	b.WriteString(documentHead)
	escape := func(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
	code := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + escape(text) + "`"
	}
	for _, v := range config.Variables() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(v.Name), code(v.Default), escape(v.Help), escape(v.Allowed), v.Since)
	}
	b.WriteString(documentTail)
	return b.String()
}

func TestDocumentIsUpToDate(t *testing.T) {
	t.Parallel()
	if *write {
		require.NoError(t, os.WriteFile(documentPath, []byte(document()), 0o644))
		return
	}
	text, err := os.ReadFile(documentPath)
	require.NoError(t, err)
	require.Equal(t, document(), string(text), "docs/configuration.md is stale: run `go generate ./internal/config`")
}
