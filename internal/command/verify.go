package command

import (
	"fmt"
	"text/tabwriter"

	"github.com/afterwrite/afterwrite/internal/operate"
)

type verifyCommand struct {
	Repair  bool `help:"Repair what the rules allow."`
	History bool `help:"Also replay the histories of counters."`
	JSON    bool `help:"Print a JSON object."                   name:"json"`
	Rate    int  `default:"20000"                               help:"Maximum counters, or records, a second; 0: no limit." placeholder:"N"`
	Show    int  `default:"20"                                  help:"Maximum number of differences to show."               placeholder:"N"`
}

// maxShown bounds --show, since these differences are held in memory.
const maxShown = 100_000

// Validate implements kong's check of a command line.
func (v verifyCommand) Validate() error {
	switch {
	case v.Rate < 0:
		return fmt.Errorf("--rate must be 0 or more; it is %d", v.Rate)
	case v.Show < 0 || v.Show > maxShown:
		return fmt.Errorf("--show must be 0 to %[2]d; it is %[1]d", v.Show, maxShown)
	}
	return nil
}

// Run implements the command.
func (v verifyCommand) Run(w *world) error {
	o, err := openOperator(w, "verify", oneByOne)
	if err != nil {
		return err
	}
	defer o.close()
	all, err := o.servers.Cache.KeyCount(w.ctx)
	if err != nil {
		return err
	}
	report, failed := o.Verify(w.ctx, operate.VerifyOptions{
		Repair: v.Repair, History: v.History, Rate: v.Rate, MaxDirty: o.servers.Config.MaxDirty, Examples: v.Show,
		Progress: progressLine(w, all),
	})
	return v.conclude(w, report, failed)
}

// conclude prints the report, and returns an error unless all differences were repaired.
func (v verifyCommand) conclude(w *world, report operate.Report, failed error) error {
	if err := v.print(w, report); err != nil {
		return err
	}
	switch {
	case failed != nil && w.ctx.Err() != nil:
		return fmt.Errorf("interrupted after %d counters", report.Entries)
	case failed != nil:
		return fmt.Errorf("ended after %d counters: %w", report.Entries, failed)
	case report.Held > 0:
		return fmt.Errorf("%d differences are left, %d of them since half of AFTERWRITE_MAX_DIRTY is dirty: "+
			"run it again when workers have flushed", report.Unrepaired, report.Held)
	case report.Unrepaired > 0:
		return fmt.Errorf("%d differences are left: see above", report.Unrepaired)
	}
	return nil
}

func (v verifyCommand) print(w *world, report operate.Report) error {
	if v.JSON {
		return printJSON(w.stdout, report)
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintln(table, "CLASS\tCOUNTERS\tREPAIRED\tMEANS")
	for _, e := range operate.Explanations() {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", e.Class, report.Counts[e.Class], report.Repaired[e.Class], e.Text)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(report.Examples) > 0 {
		fmt.Fprintln(table, "\nKEY\tCLASS\tREDIS\tPOSTGRES\tREPAIRED")
	}
	for _, d := range report.Examples {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%t\n", oneLine(d.Key), d.Class, d.Redis, d.Postgres, d.Repaired)
	}
	if err := table.Flush(); err != nil || report.History == nil {
		return err
	}
	return printHistories(table, report.History)
}

// printHistories prints the part of a report about histories.
func printHistories(table *tabwriter.Writer, h *operate.HistoryReport) error {
	fmt.Fprintln(table, "\nHISTORY\tCOUNTERS\tMEANS")
	for _, e := range operate.HistoryExplanations() {
		fmt.Fprintf(table, "%s\t%d\t%s\n", e.Class, h.Counts[e.Class], e.Text)
	}
	if err := table.Flush(); err != nil || len(h.Examples) == 0 {
		return err
	}
	fmt.Fprintln(table, "\nKEY\tHISTORY\tDETAIL")
	for _, d := range h.Examples {
		fmt.Fprintf(table, "%s\t%s\t%s\n", oneLine(d.Key), d.Class, d.Detail)
	}
	return table.Flush()
}

// progressLine returns a function that draws the progress, or nil. all is an approximate total, since Redis has other keys than entries.
func progressLine(w *world, all int64) func(operate.Report) {
	draw := progressBar(w, all)
	if draw == nil {
		return nil
	}
	return func(r operate.Report) { draw(r.Entries, fmt.Sprintf("%d differences", r.Differences)) }
}
