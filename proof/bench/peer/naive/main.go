// Command naive is write-behind as one would begin: it adds in Redis, sends one Asynq task for each write, and answers. `naive
// worker` writes to Postgres, one upsert a task.
//
// A task adds to its row, since tasks run in any order. So one that runs twice counts twice, and a write whose task could not be
// sent is lost: what is measured is its speed. It keeps no version in Redis and answers 0 for it.
package main

import (
	"fmt"
	"os"

	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

// queue holds the tasks.
const queue = "naive"

func main() {
	switch arguments := os.Args[1:]; {
	case len(arguments) == 0:
		frame.Exit(serve())
	case len(arguments) == 1 && arguments[0] == "worker":
		frame.Exit(work())
	default:
		frame.Exit(fmt.Errorf("naive takes nothing, or worker, not %q", arguments))
	}
}
