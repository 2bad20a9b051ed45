package command

import (
	"errors"

	"github.com/afterwrite/afterwrite/internal/process"
)

// mappingsCommand has the commands for mappings. They need Postgres, but not Redis.
type mappingsCommand struct {
	Check    mappingsCheckCommand    `cmd:"" help:"Check whether the mappings fit the tables of Postgres."`
	Import   mappingsImportCommand   `cmd:"" help:"Make counters of the values that a column has already."`
	Backfill mappingsBackfillCommand `cmd:"" help:"Write all counters to their column."`
	Verify   mappingsVerifyCommand   `cmd:"" help:"Compare a column with its counters; --repair repairs it."`
}

// openMappings connects a command that needs mappings. The caller closes the result.
func openMappings(w *world) (*process.Servers, error) {
	s, err := w.connect("mappings", process.Pools{Postgres: oneByOne.Postgres})
	if err != nil {
		return nil, err
	}
	if s.Mappings == nil {
		s.Close()
		return nil, errors.New("AFTERWRITE_MAPPINGS is not set: set it to the path of a file with mappings (see docs/mappings.md)")
	}
	return s, nil
}
