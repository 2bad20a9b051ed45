package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes the findings as a table for people: one line each, what to do about it below.
func Print(w io.Writer, findings []Finding) error {
	// A tabwriter keeps its error for Flush.
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATUS\tCHECK\tFOUND")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Status, f.Name, f.Detail)
		if f.Fix != "" {
			fmt.Fprintf(table, "\t\t-> %s\n", f.Fix)
		}
	}
	return table.Flush()
}

// PrintJSON writes the findings as one JSON array.
func PrintJSON(w io.Writer, findings []Finding) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(findings)
}
