package operate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/store"
)

// ImportOptions are the options of Import.
type ImportOptions struct {
	After    string         // the After of an earlier report; "": from the start
	Rate     int            // rows a second at most; 0: no limit
	Examples int            // maximum number of rows without a key in the report
	Progress func(Imported) // called after each page; may be nil
}

// Imported is the result of Import.
type Imported struct {
	Mapping  string `json:"mapping"`
	Complete bool   `json:"complete"`        // false: it ended early; After says where
	Rows     int64  `json:"rows"`            // rows of the table that were read
	Empty    int64  `json:"empty"`           // rows whose column is NULL or 0: no counter is needed
	Imported int64  `json:"imported"`        // new counters, and imported ones whose column was written since
	Present  int64  `json:"present"`         // rows that have a counter already
	Keyless  int64  `json:"keyless"`         // rows whose values no key can have
	After    string `json:"after,omitempty"` // the last row of the last complete page
	// Examples are rows without a key, as text.
	Examples []string `json:"examples"`
}

// Import brings the values of the column into counters, for rows that have none. It reads the table in the order of a unique index, in
// pages, so it needs little memory. It is safe under load: the value is read again when it is inserted, and a counter that was
// written stays as it is. It may be interrupted and repeated. If o.After is given, it goes on after that row.
//
// Import blocks until all rows are read. The report is valid even if there is an error.
func (c *Column) Import(ctx context.Context, o ImportOptions) (Imported, error) {
	report := Imported{Mapping: c.mapping.Name, After: o.After, Examples: []string{}}
	after, err := parseCursor(o.After)
	if err != nil {
		return report, err
	}
	started := false
	err = c.eachTablePage(ctx, o.Rate, after, func(rows []store.TableRow) error {
		started = true
		if err := c.importPage(ctx, rows, o.Examples, &report); err != nil {
			return err
		}
		if o.Progress != nil {
			o.Progress(report)
		}
		return nil
	})
	if err != nil && !started && store.Classify(err) == store.Refused && o.After != "" {
		return report, cursorError(o.After, err)
	}
	report.Complete = err == nil
	return report, err
}

// importPage imports a page, and adds it to the report when it is complete.
func (c *Column) importPage(ctx context.Context, rows []store.TableRow, examples int, report *Imported) error {
	var keyless []store.TableRow
	targets := c.targets(rows, func(row store.TableRow) { keyless = append(keyless, row) })
	imported, err := c.column.Import(ctx, targets)
	if err != nil {
		return err
	}
	report.Rows += int64(len(rows))
	report.Empty += int64(len(rows) - len(targets) - len(keyless))
	report.Imported += imported
	report.Present += int64(len(targets)) - imported
	report.Keyless += int64(len(keyless))
	for _, row := range keyless[:min(len(keyless), max(0, examples-len(report.Examples)))] {
		report.Examples = append(report.Examples, c.mapping.Row(row.Values))
	}
	if len(rows) > 0 {
		report.After = formatCursor(rows[len(rows)-1].Cursor)
	}
	return nil
}

// formatCursor returns the text of a cursor: a JSON array of texts.
func formatCursor(cursor []string) string {
	text, err := json.Marshal(cursor)
	if err != nil { // texts of Postgres are valid UTF-8
		return ""
	}
	return string(text)
}

// parseCursor reads what formatCursor returns. "" is no cursor.
func parseCursor(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	cursor := []string{}
	if err := json.Unmarshal([]byte(text), &cursor); err != nil || cursor == nil {
		return nil, cursorError(text, err)
	}
	return cursor, nil
}

func cursorError(text string, err error) error {
	if err == nil {
		return fmt.Errorf("%q is not a row of this mapping: give the value that an interrupted import has printed", text)
	}
	return fmt.Errorf("%q is not a row of this mapping: give the value that an interrupted import has printed: %w", text, err)
}
