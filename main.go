// Command afterwrite is write-behind counters: HTTP writes are acknowledged as soon as Redis has them, and Postgres gets
// them afterwards, coalesced and in batches. Run it without arguments for its help.
package main

import (
	"os"

	"github.com/afterwrite/afterwrite/internal/command"
)

func main() {
	os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr))
}
