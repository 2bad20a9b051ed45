package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/afterwrite/afterwrite/internal/deadletter"
)

type deadListCommand struct {
	JSON  bool `help:"Print a JSON array."           name:"json"`
	Limit int  `help:"Show so many at most; 0: all." placeholder:"N"`
}

// Validate implements kong's check of a command line.
func (d deadListCommand) Validate() error {
	if d.Limit < 0 {
		return fmt.Errorf("--limit is %d: it takes a number from 0", d.Limit)
	}
	return nil
}

// errEnough ends a list at its limit.
var errEnough = errors.New("enough")

// Run implements the command.
func (d deadListCommand) Run(w *world) error {
	box, err := openDead(w)
	if err != nil {
		return err
	}
	defer box.close()

	var out letterWriter = &letterTable{to: w.stdout}
	if d.JSON {
		out = &letterArray{to: w.stdout}
	}
	shown := 0
	unread, err := box.Each(w.ctx, func(letters []deadletter.Letter) error {
		if d.Limit > 0 {
			letters = letters[:min(len(letters), d.Limit-shown)]
		}
		shown += len(letters)
		if err := out.write(letters); err != nil {
			return err
		}
		if d.Limit > 0 && shown >= d.Limit {
			return errEnough
		}
		return nil
	})
	unreadPostgres(w, unread)
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	all, err := box.Count(w.ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stderr, "%d of %d dead letters\n", shown, max(all, int64(shown))) // not a part of the list
	return nil
}

// letterWriter writes a list of dead letters, page by page.
type letterWriter interface {
	write(letters []deadletter.Letter) error
	end() error
}

// tablePart is how many lines of a table are aligned together, so that a long list needs no memory.
const tablePart = 500

// letterTable writes a table for people.
type letterTable struct {
	to     io.Writer
	headed bool
	kept   []deadletter.Letter
}

func (t *letterTable) write(letters []deadletter.Letter) error {
	if t.kept = append(t.kept, letters...); len(t.kept) < tablePart {
		return nil
	}
	return t.end()
}

func (t *letterTable) end() error {
	table := tabwriter.NewWriter(t.to, 0, 0, 2, ' ', 0)
	if !t.headed && len(t.kept) > 0 {
		fmt.Fprintln(table, "KEY\tATTEMPTS\tSINCE\tREDIS\tPOSTGRES\tREASON") // a tabwriter keeps its error for Flush
		t.headed = true
	}
	for _, l := range t.kept {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", oneLine(string(l.Key)), l.Attempts, timestamp(l.Since), l.Redis, l.Postgres,
			oneLine(l.Reason))
	}
	t.kept = t.kept[:0]
	return table.Flush()
}

// letterArray writes a JSON array, one dead letter on a line.
type letterArray struct {
	to   io.Writer
	some bool
}

func (a *letterArray) write(letters []deadletter.Letter) error {
	for _, l := range letters {
		line, err := json.Marshal(l)
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

func (a *letterArray) end() error {
	text := "\n]\n"
	if !a.some {
		text = "[]\n"
	}
	_, err := io.WriteString(a.to, text)
	return err
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
