package command

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/afterwrite/afterwrite/internal/deadletter"
)

type deadShowCommand struct {
	JSON bool `help:"Print a JSON object." name:"json"`

	Key string `arg:"" help:"The counter's key."`
}

// Run implements the command.
func (d deadShowCommand) Run(w *world) error {
	keys, err := parseKeys([]string{d.Key})
	if err != nil {
		return err
	}
	box, err := openDead(w)
	if err != nil {
		return err
	}
	defer box.close()
	shown, unread, err := box.Show(w.ctx, keys[0])
	if err != nil {
		return err
	}
	unreadPostgres(w, unread)
	if d.JSON {
		encoder := json.NewEncoder(w.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(shown)
	}
	return sayShown(w, shown)
}

// sayShown writes everything about a dead letter.
func sayShown(w *world, l deadletter.Shown) error {
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // it keeps its error for Flush
	fmt.Fprintf(table, "key\t%s\n", oneLine(string(l.Key)))
	fmt.Fprintf(table, "shard\t%s\n", l.Shard)
	fmt.Fprintf(table, "reason\t%s\n", oneLine(l.Reason))
	fmt.Fprintf(table, "attempts\t%d\n", l.Attempts)
	fmt.Fprintf(table, "since\t%s (%s ago)\n", timestamp(l.Since), max(0, time.Since(l.Since)).Round(time.Second))
	fmt.Fprintf(table, "redis\t%s\n", l.Redis)
	fmt.Fprintf(table, "postgres\t%s\n", l.Postgres)
	if r := l.Retry; r != nil {
		fmt.Fprintf(table, "task\t%s in %s, %s: %s\n", oneLine(r.ID), r.Queue, r.State, oneLine(r.LastError))
	} else {
		fmt.Fprintf(table, "task\tnone: asynq keeps about 10,000 archived tasks, for 90 days\n")
	}
	fmt.Fprintf(table, "to do\tmend the cause and `afterwrite dead redrive` it, or `afterwrite dead discard` it\n")
	return table.Flush()
}
