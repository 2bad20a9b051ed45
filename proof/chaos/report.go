package main

import (
	"cmp"
	"fmt"
	"io"
	"time"
)

// report is the result of a run.
type report struct {
	settings
	*rig

	ledger   *ledger
	killer   *killer
	verifier *verifier
	took     time.Duration
	verdict  verdict
}

// write prints the figures. It prints faults and events only if there are violations.
func (r report) write(out io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	kills := r.killer.done.sum(string(faultKill))
	line("kills", "%d, %.0f/min", kills, float64(kills)/r.took.Minutes())
	line("faults", "%s", r.killer.done)
	r.writeLedger(out)
	line("answers", "%s", r.ledger.reasons)
	if r.protocol == protocolRESP {
		line("commands", "%s", r.ledger.forms)
	}
	acked := r.ledger.writes(acknowledged)
	line("writes", "%d acknowledged in %.0f s, %.0f/s", acked, r.took.Seconds(), float64(acked)/r.took.Seconds())
	for _, p := range r.processes {
		for _, ending := range p.endings() {
			line("ended by itself", "%s %s: see %s", p.Name, ending, p.Log)
		}
	}
	if r.killer.outage != nil {
		r.killer.outage.write(r.ledger, line)
	}
	r.writeVerdict(line)
	r.writeFindings(out)
}

// writeLedger prints the operations by kind and outcome.
func (r report) writeLedger(out io.Writer) {
	fmt.Fprintf(out, "%-16s %14s %14s %14s\n", "ledger", "acknowledged", "not applied", "indeterminate")
	for _, kind := range []string{kindIncrement, kindSet, kindDelete, kindRead} {
		fmt.Fprintf(out, "  %-14s", kind)
		for _, o := range []outcome{acknowledged, refused, indeterminate} {
			fmt.Fprintf(out, " %14d", r.ledger.outcomes.sum(outcomeKey(kind, o)))
		}
		fmt.Fprintln(out)
	}
}

func (r report) writeVerdict(line func(name, format string, args ...any)) {
	v := r.verdict
	if !v.checked {
		line("not checked", "the final checks did not finish")
	}
	acked := v.acked.up + v.acked.down
	line("increments", "postgres has %d more than at the start; acknowledged %d, indeterminate %d to %+d", v.value-v.adopted, acked,
		v.possible.low.value-v.adopted-acked, v.possible.high.value-v.adopted-acked)
	line("time to drain", "%.2f s", v.drain.Seconds())
	line("left", "%d dirty, %d dead, %d archived", v.backlog.Dirty, v.backlog.Dead, v.archived)
	line("keys", "%d checked, %d of them also in redis; all rows read %d times under load", v.keys, v.warm, r.verifier.rowReads)
	line("columns", "%d checked, %d of them with a value at the start; all columns compared with their rows under load, too",
		v.columns, v.starts)
	line("redis!=postgres", "%d", v.unequal)
	line("column!=row", "%d", v.disagree)
	if r.history {
		line("records", "%d, replayed at the end; wrong ones by key: %s; the latest of a key read %d times under load", v.records,
			cmp.Or(v.misrecorded.String(), "none"), r.verifier.recordReads)
	}
	line("wrong values", "%d", v.wrong)
	line("lost", "%d", v.lost)
	line("double-counted", "%d", v.doubled)
	_, total := r.ledger.findings.all()
	line("violations", "%d", total)
}

func (r report) writeFindings(out io.Writer) {
	kept, total := r.ledger.findings.all()
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
