package command

import (
	"fmt"
	"text/tabwriter"

	"github.com/afterwrite/afterwrite/internal/operate"
)

type mappingsBackfillCommand struct {
	columnFlags
}

// Run implements the command.
func (m mappingsBackfillCommand) Run(w *world) error {
	column, servers, err := m.open(w)
	if err != nil {
		return err
	}
	defer servers.Close()
	o := operate.BackfillOptions{Rate: m.Rate, Examples: m.Show}
	all, err := column.Counters(w.ctx)
	if err != nil {
		return err
	}
	if draw := progressBar(w, all); draw != nil {
		o.Progress = func(r operate.Backfilled) { draw(r.Counters, fmt.Sprintf("%d written", r.Updated+r.Inserted)) }
	}
	report, failed := column.Backfill(w.ctx, o)
	if err := m.print(w, report); err != nil {
		return err
	}
	switch left := report.Refused + report.Locked; {
	case failed != nil && w.ctx.Err() != nil:
		return fmt.Errorf("interrupted after %d counters: run it again", report.Counters)
	case failed != nil:
		return fmt.Errorf("ended after %d counters: %w", report.Counters, failed)
	case left > 0:
		return fmt.Errorf("%d counters were not written: see above", left)
	}
	return nil
}

func (m mappingsBackfillCommand) print(w *world, r operate.Backfilled) error {
	if m.JSON {
		return printJSON(w.stdout, r)
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintf(table, "equal\t%d\tthe column had the value\n", r.Equal)
	fmt.Fprintf(table, "updated\t%d\t\n", r.Updated)
	fmt.Fprintf(table, "inserted\t%d\trows that did not exist\n", r.Inserted)
	fmt.Fprintf(table, "missing\t%d\tthe row does not exist\n", r.Missing)
	fmt.Fprintf(table, "refused\t%d\tpostgres refuses the value\n", r.Refused)
	fmt.Fprintf(table, "locked\t%d\tanother transaction locks the row: run it again\n", r.Locked)
	if err := table.Flush(); err != nil {
		return err
	}
	return sayExceptions(w, r.Examples)
}

// sayExceptions prints a table of counters that were not written, if there are any.
func sayExceptions(w *world, exceptions []operate.BackfillException) error {
	if len(exceptions) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintln(table, "\nKEY\tROW\tPROBLEM\tREASON")
	for _, e := range exceptions {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", oneLine(string(e.Key)), oneLine(e.Row), e.Problem, oneLine(e.Reason))
	}
	return table.Flush()
}
