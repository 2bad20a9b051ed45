package command

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
)

// columnFlags are the flags of the commands for the column of one mapping.
type columnFlags struct {
	JSON bool `help:"Print a JSON object." name:"json"`
	Rate int  `default:"0"                 help:"Maximum rows a second; 0: no limit."        placeholder:"N"`
	Show int  `default:"20"                help:"Maximum number of rows to show in the end." placeholder:"N"`

	Name string `arg:"" help:"The mapping's name."`
}

// Validate implements kong's check of a command line.
func (f columnFlags) Validate() error {
	switch {
	case f.Rate < 0:
		return fmt.Errorf("--rate must be 0 or more; it is %d", f.Rate)
	case f.Show < 0 || f.Show > maxShown:
		return fmt.Errorf("--show must be 0 to %[2]d; it is %[1]d", f.Show, maxShown)
	}
	return nil
}

// open opens the column of the mapping. The caller closes the servers. Redis is not needed.
func (f columnFlags) open(w *world) (*operate.Column, *process.Servers, error) {
	s, err := openMappings(w)
	if err != nil {
		return nil, nil, err
	}
	column, err := operate.OpenColumn(w.ctx, s.Store, s.Mappings, f.Name)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return column, s, nil
}

type mappingsImportCommand struct {
	columnFlags

	After string `help:"Go on after the row that an interrupted import printed." placeholder:"CURSOR"`
}

// Run implements the command.
func (m mappingsImportCommand) Run(w *world) error {
	column, servers, err := m.open(w)
	if err != nil {
		return err
	}
	defer servers.Close()
	o := operate.ImportOptions{After: m.After, Rate: m.Rate, Examples: m.Show}
	if draw := progressBar(w, column.Rows()); draw != nil {
		o.Progress = func(r operate.Imported) { draw(r.Rows, fmt.Sprintf("%d imported", r.Imported)) }
	}
	report, failed := column.Import(w.ctx, o)
	if failed != nil && report.Rows == 0 && report.After == m.After && w.ctx.Err() == nil {
		return failed
	}
	if err := m.print(w, report); err != nil {
		return err
	}
	if failed == nil {
		return nil
	}
	again := "run it again"
	if report.After != "" {
		again = "to go on, run it with --after " + shellQuoted(report.After)
	}
	if w.ctx.Err() != nil {
		return fmt.Errorf("interrupted after %d rows: %s", report.Rows, again)
	}
	return fmt.Errorf("ended after %d rows (%s): %w", report.Rows, again, failed)
}

// shellQuoted returns text as one word for a shell.
func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func (m mappingsImportCommand) print(w *world, r operate.Imported) error {
	if m.JSON {
		return printJSON(w.stdout, r)
	}
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintf(table, "rows\t%d\tread from the table\n", r.Rows)
	fmt.Fprintf(table, "imported\t%d\tnew counters, or imported ones whose column has changed\n", r.Imported)
	fmt.Fprintf(table, "present\t%d\thad a counter already\n", r.Present)
	fmt.Fprintf(table, "empty\t%d\tNULL or 0: a counter starts there anyway\n", r.Empty)
	fmt.Fprintf(table, "keyless\t%d\tno key can have the row's values: they cannot be counted\n", r.Keyless)
	if len(r.Examples) > 0 {
		fmt.Fprintln(table, "\nROWS WITHOUT A KEY")
		for _, row := range r.Examples {
			fmt.Fprintln(table, oneLine(row))
		}
	}
	return table.Flush()
}
