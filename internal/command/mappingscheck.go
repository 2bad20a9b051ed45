package command

import (
	"fmt"
	"text/tabwriter"

	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

type mappingsCheckCommand struct {
	JSON bool `help:"Print a JSON array." name:"json"`
}

// checkedMapping is what --json prints for a mapping. Its names are stable; docs/mappings.md has them.
type checkedMapping struct {
	Name     string           `json:"name"`
	Key      string           `json:"key"`
	Column   string           `json:"column"`
	State    string           `json:"state"` // ok or refused
	Problems []mappingProblem `json:"problems"`
}

type mappingProblem struct {
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

// Run implements the command.
func (c mappingsCheckCommand) Run(w *world) error {
	s, err := openMappings(w)
	if err != nil {
		return err
	}
	defer s.Close()
	problems, err := s.Store.CheckMappings(w.ctx)
	if err != nil {
		return err
	}
	checked := checkedMappings(s.Mappings, problems)
	if c.JSON {
		err = printJSON(w.stdout, checked)
	} else {
		err = printMappings(w, checked)
	}
	if err != nil {
		return err
	}
	refused := 0
	for _, m := range checked {
		if len(m.Problems) > 0 {
			refused++
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d mappings do not fit the tables: see above", refused, len(checked))
	}
	return nil
}

func checkedMappings(all *mapping.Mappings, problems []store.MappingProblem) []checkedMapping {
	checked := make([]checkedMapping, len(all.All()))
	for i, m := range all.All() {
		one := checkedMapping{Name: m.Name, Key: m.Pattern.String(), Column: m.ColumnName(), State: "ok", Problems: []mappingProblem{}}
		for _, p := range problems {
			if p.Mapping == m.Name {
				one.State = "refused"
				one.Problems = append(one.Problems, mappingProblem{p.Problem, p.Fix})
			}
		}
		checked[i] = one
	}
	return checked
}

// printMappings prints a table, with the problems of a mapping below it.
func printMappings(w *world, checked []checkedMapping) error {
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0) // Flush returns its errors
	fmt.Fprintln(table, "MAPPING\tKEY\tCOLUMN\tSTATE")
	for _, m := range checked {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.Name, m.Key, m.Column, m.State)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, m := range checked {
		for _, p := range m.Problems {
			fmt.Fprintf(w.stdout, "\n%s: %s\n-> %s\n", m.Name, oneLine(p.Problem), p.Fix)
		}
	}
	return nil
}
