package command

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/deadletter"
	"github.com/afterwrite/afterwrite/tasks"
)

type deadShowCommand struct {
	JSON bool `help:"Print a JSON object." name:"json"`

	Key string `arg:"" help:"The counter's key."`
}

// shownLetter is everything about a dead letter.
type shownLetter struct {
	deadletter.Letter

	Retry *shownRetry `json:"retry"` // null: Asynq has none any more
}

// shownRetry is the last retry of a dead letter, as Asynq keeps it.
type shownRetry struct {
	ID        string `json:"id"`
	Queue     string `json:"queue"`
	State     string `json:"state"`
	Retried   int    `json:"retried"`
	LastError string `json:"last_error"`
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
	letter, unread, err := box.Get(w.ctx, keys[0])
	if err != nil {
		return err
	}
	unreadPostgres(w, unread)
	retry, err := box.Retry(letter.Key)
	if err != nil {
		return err
	}
	shown := shownLetter{Letter: letter, Retry: describe(retry)}
	if d.JSON {
		encoder := json.NewEncoder(w.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(shown)
	}
	return shown.print(w)
}

func describe(task *asynq.TaskInfo) *shownRetry {
	if task == nil {
		return nil
	}
	return &shownRetry{
		ID: task.ID, Queue: tasks.QueueRetry, State: task.State.String(), Retried: task.Retried, LastError: task.LastErr,
	}
}

func (l shownLetter) print(w *world) error {
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
