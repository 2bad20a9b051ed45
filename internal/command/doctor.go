package command

import (
	"errors"

	"github.com/afterwrite/afterwrite/internal/process"
)

type doctorCommand struct {
	JSON bool `help:"Print the findings as JSON." name:"json"`
}

// Run implements the command.
func (d doctorCommand) Run(w *world) error {
	s, err := w.connect("doctor", oneByOne)
	if err != nil {
		return err
	}
	defer s.Close()
	_ = s.ChooseShards(w.ctx) // the checks say what is wrong with a Redis that does not answer
	findings := s.Checks().Run(w.ctx)
	write := process.Print
	if d.JSON {
		write = process.PrintJSON
	}
	if err := write(w.stdout, findings); err != nil {
		return err
	}
	if process.Worst(findings) == process.Refused {
		return errors.New("something is refused: see above")
	}
	return nil
}
