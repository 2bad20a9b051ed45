package command

import (
	"fmt"
	"text/tabwriter"

	"github.com/afterwrite/afterwrite/internal/operate"
)

type mappingsVerifyCommand struct {
	columnFlags

	Repair     bool `help:"Write the counters that differ to the column."`
	Unimported bool `help:"Also read the whole table, for rows that have a value but no counter."`
}

// Run implements the command.
func (m mappingsVerifyCommand) Run(w *world) error {
	column, servers, err := m.open(w)
	if err != nil {
		return err
	}
	defer servers.Close()
	all, err := column.Counters(w.ctx)
	if err != nil {
		return err
	}
	if m.Unimported {
		all += column.Rows()
	}
	o := operate.VerifyColumnOptions{Repair: m.Repair, Unimported: m.Unimported, Rate: m.Rate, Examples: m.Show}
	if draw := progressBar(w, all); draw != nil {
		o.Progress = func(r operate.ColumnVerified) {
			draw(r.Counters+r.Rows, fmt.Sprintf("%d differences", r.Repaired+r.Unrepaired))
		}
	}
	report, failed := column.Verify(w.ctx, o)
	if err := m.print(w, report); err != nil {
		return err
	}
	switch {
	case failed != nil && w.ctx.Err() != nil:
		return fmt.Errorf("interrupted after %d counters and %d rows", report.Counters, report.Rows)
	case failed != nil:
		return fmt.Errorf("ended after %d counters and %d rows: %w", report.Counters, report.Rows, failed)
	case report.Unrepaired > 0:
		return fmt.Errorf("%d differences are left: see above", report.Unrepaired)
	}
	return nil
}

func (m mappingsVerifyCommand) print(w *world, r operate.ColumnVerified) error {
	if m.JSON {
		return printJSON(w.stdout, r)
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintln(table, "CLASS\tCOUNT\tMEANS")
	for _, e := range operate.ColumnExplanations() {
		if count := r.Counts[e.Class]; m.Unimported || !e.NeedsTable {
			fmt.Fprintf(table, "%s\t%d\t%s\n", e.Class, count, e.Text)
		}
	}
	if m.Repair {
		fmt.Fprintf(table, "\nrepaired: %d\n", r.Repaired)
	}
	if len(r.Examples) > 0 {
		fmt.Fprintln(table, "\nKEY\tROW\tCLASS\tCOUNTER\tCOLUMN\tREPAIRED")
	}
	for _, d := range r.Examples {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%t\n", orDash(oneLine(string(d.Key))), oneLine(d.Row), d.Class, orNull(d.Counter),
			orNull(d.Column), d.Repaired)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return sayExceptions(w, r.Problems)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func orNull(text *string) string {
	if text == nil {
		return "NULL"
	}
	return *text
}
