package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// deadCommand has the commands for dead letters.
type deadCommand struct {
	List    deadListCommand    `cmd:"" help:"List the dead letters."`
	Show    deadShowCommand    `cmd:"" help:"Show everything about one."`
	Redrive deadRedriveCommand `cmd:"" help:"Try them again, after you have removed the cause."`
	Discard deadDiscardCommand `cmd:"" help:"Drop the refused writes, and return the counter to Postgres's value."`
}

// openDead checks keys that were given as arguments, and opens the servers. The caller closes them.
func openDead(w *world, args ...string) (*operator, []counter.Key, error) {
	keys, err := parseKeys(args...)
	if err != nil {
		return nil, nil, err
	}
	o, err := openOperator(w, "dead", oneByOne)
	return o, keys, err
}

type deadListCommand struct {
	JSON  bool `help:"Print a JSON array."             name:"json"`
	Limit int  `help:"Maximum number to show; 0: all." placeholder:"N"`
}

// Validate implements kong's check of a command line.
func (d deadListCommand) Validate() error {
	if d.Limit < 0 {
		return fmt.Errorf("--limit must be 0 or more; it is %d", d.Limit)
	}
	return nil
}

// errEnough stops the iteration at the limit.
var errEnough = errors.New("enough")

// Run implements the command.
func (d deadListCommand) Run(w *world) error {
	o, _, err := openDead(w)
	if err != nil {
		return err
	}
	defer o.close()

	var out deadWriter = &deadTable{to: w.stdout}
	if d.JSON {
		out = &deadArray{to: w.stdout}
	}
	shown := 0
	var postgresErr error
	err = o.Each(w.ctx, func(dead []operate.DeadLetter) error {
		if d.Limit > 0 {
			dead = dead[:min(len(dead), d.Limit-shown)]
		}
		shown += len(dead)
		if len(dead) > 0 && dead[0].PostgresErr != nil {
			postgresErr = dead[0].PostgresErr
		}
		if err := out.write(dead); err != nil {
			return err
		}
		if d.Limit > 0 && shown >= d.Limit {
			return errEnough
		}
		return nil
	})
	warnPostgres(w, postgresErr)
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	all, err := o.Count(w.ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stderr, "%d of %d dead letters\n", shown, max(all, int64(shown))) // on stderr, since it is not part of the list
	return nil
}

// warnPostgres reports on stderr why the values in Postgres are not shown.
func warnPostgres(w *world, err error) {
	if err != nil {
		fmt.Fprintf(w.stderr, "afterwrite: postgres did not answer, so its values are shown as \"?\": %s\n", oneLine(err.Error()))
	}
}

// deadWriter writes a list of dead letters, page by page.
type deadWriter interface {
	write(dead []operate.DeadLetter) error
	end() error
}

// tablePart is the number of rows that are aligned together, which bounds the memory of a long list.
const tablePart = 500

// deadTable writes a table for people.
type deadTable struct {
	to     io.Writer
	headed bool
	kept   []operate.DeadLetter
}

func (t *deadTable) write(dead []operate.DeadLetter) error {
	if t.kept = append(t.kept, dead...); len(t.kept) < tablePart {
		return nil
	}
	return t.end()
}

func (t *deadTable) end() error {
	table := tabwriter.NewWriter(t.to, 0, 0, 2, ' ', 0)
	if !t.headed && len(t.kept) > 0 {
		fmt.Fprintln(table, "KEY\tATTEMPTS\tSINCE\tREDIS\tPOSTGRES\tREASON") // Flush returns its errors
		t.headed = true
	}
	for _, d := range t.kept {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", oneLine(string(d.Key)), d.Attempts, timestamp(d.Since), d.Redis, d.Postgres,
			oneLine(d.Reason))
	}
	t.kept = t.kept[:0]
	return table.Flush()
}

// deadArray writes a JSON array with one dead letter a line.
type deadArray struct {
	to   io.Writer
	some bool
}

func (a *deadArray) write(dead []operate.DeadLetter) error {
	for _, d := range dead {
		line, err := json.Marshal(d)
		if err != nil {
			return err
		}
		before := ",\n "
		if !a.some {
			before = "[\n "
			a.some = true
		}
		if _, err := fmt.Fprintf(a.to, "%s%s", before, line); err != nil {
			return err
		}
	}
	return nil
}

func (a *deadArray) end() error {
	text := "\n]\n"
	if !a.some {
		text = "[]\n"
	}
	_, err := io.WriteString(a.to, text)
	return err
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

type deadShowCommand struct {
	JSON bool `help:"Print a JSON object." name:"json"`

	Key string `arg:"" help:"The counter's key."`
}

// Run implements the command.
func (d deadShowCommand) Run(w *world) error {
	o, keys, err := openDead(w, d.Key)
	if err != nil {
		return err
	}
	defer o.close()
	shown, err := o.Show(w.ctx, keys[0])
	if err != nil {
		return err
	}
	warnPostgres(w, shown.PostgresErr)
	if d.JSON {
		return printJSON(w.stdout, shown)
	}
	return sayShown(w, shown)
}

// sayShown prints everything about a dead letter.
func sayShown(w *world, d operate.Shown) error {
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintf(table, "key\t%s\n", oneLine(string(d.Key)))
	fmt.Fprintf(table, "shard\t%s\n", d.Shard)
	fmt.Fprintf(table, "reason\t%s\n", oneLine(d.Reason))
	fmt.Fprintf(table, "attempts\t%d\n", d.Attempts)
	fmt.Fprintf(table, "since\t%s (%s ago)\n", timestamp(d.Since), max(0, time.Since(d.Since)).Round(time.Second))
	fmt.Fprintf(table, "redis\t%s\n", d.Redis)
	fmt.Fprintf(table, "postgres\t%s\n", d.Postgres)
	if r := d.Retry; r != nil {
		fmt.Fprintf(table, "task\t%s in %s, %s: %s\n", oneLine(r.ID), r.Queue, r.State, oneLine(r.LastError))
	} else {
		fmt.Fprintf(table, "task\tnone: asynq keeps about 10,000 archived tasks, for 90 days\n")
	}
	fmt.Fprintf(table, "to do\trepair the cause and `afterwrite dead redrive` it, or `afterwrite dead discard` it\n")
	return table.Flush()
}
