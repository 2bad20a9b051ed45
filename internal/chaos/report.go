package main

import (
	"fmt"
	"io"
	"time"
)

// report is what a run has shown.
type report struct {
	settings
	*world

	ledger  *ledger
	killer  *killer
	took    time.Duration
	verdict verdict
}

// write prints it: the figures always, and what happened only where something is wrong.
func (r report) write(out io.Writer) {
	kept, total := r.ledger.findings.all()
	acked := r.ledger.tally.sum("acknowledged")
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("faults", "%s", r.killer.done)
	line("kills", "%d, %.0f a minute", r.killer.done.sum(string(faultKill)),
		float64(r.killer.done.sum(string(faultKill)))/r.took.Minutes())
	line("operations", "%s", r.ledger.tally)
	line("writes", "%d acknowledged, %.0f a second", acked, float64(acked)/r.took.Seconds())
	for _, p := range r.processes {
		for _, ending := range p.endings() {
			line("ended by itself", "%s %s: see %s", p.name, ending, p.log.Name())
		}
	}
	line("time to drain", "%.2f s", r.verdict.drain.Seconds())
	line("lost", "%d", r.verdict.lost)
	line("double-counted", "%d", r.verdict.doubled)
	line("violations", "%d", total)
	if total == 0 {
		return
	}
	fmt.Fprintf(out, "\nfaults, with seed %d:\n", r.seed)
	for _, fault := range r.killer.lines() {
		fmt.Fprintln(out, "  ", fault)
	}
	for _, f := range kept {
		fmt.Fprintf(out, "\n%s: %s\n", f.key, f.problem)
		for _, event := range f.events {
			fmt.Fprintln(out, "  ", event)
		}
	}
}
