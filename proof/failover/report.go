package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what a run has measured.
type result struct {
	*run
	times

	recovered  bool
	acked      int64
	unknown    int64
	lost       int64
	double     int64
	reconciled int64
	before     time.Duration // the longest gap before the fault: the resolution of gap
	gap        time.Duration
	took       time.Duration // how long the fault took
	healed     time.Duration // from the fault until the servers agreed again
	drain      time.Duration
	keys       []string      // with lost or doubled writes
	sentences  []string      // of the dashboard
	slowest    time.Duration // answer of the dashboard
}

// violation reports whether the run shows what must not happen.
func (r result) violation() bool {
	return r.double > 0 || r.lost > 0 && r.durability == durabilityReplica || !r.recovered
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// line describes the run.
func (r result) line() string {
	text := fmt.Sprintf("%s %s run %d: acknowledged %d, unknown %d, lost %d, double %d, reconciled keys %d; without an answer %s s "+
		"(before the fault %s s); servers back after %s s, then first writes %s s, first flushes %s s, dashboard %s s; drained in %s s",
		r.scenario.name, r.durability, r.number+1, r.acked, r.unknown, r.lost, r.double, r.reconciled, seconds(r.gap), seconds(r.before),
		seconds(r.down), seconds(r.write), seconds(r.flush), seconds(r.status), seconds(r.drain))
	if !r.recovered {
		text += "; NOT RECOVERED"
	}
	return text
}

// explain prints the details.
func (r result) explain(out io.Writer) {
	reasons := make([]string, 0, len(r.ledger.reasons))
	for reason, n := range r.ledger.reasons {
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(reasons)
	fmt.Fprintf(out, "  answers: %s; the fault took %s s, the servers agreed after %s s; slowest answer of the dashboard %s s\n",
		strings.Join(reasons, ", "), seconds(r.took), seconds(r.healed), seconds(r.slowest))
	if r.scenario.partition {
		fmt.Fprintf(out, "  acknowledged after the partition began: %d by the first api, %d by the api of the master that was cut off\n",
			r.ledger.late[firstAPI], r.ledger.late[1])
	}
	for _, sentence := range r.sentences {
		fmt.Fprintf(out, "  dashboard: %s\n", sentence)
	}
	for _, key := range r.keys[:min(5, len(r.keys))] {
		fmt.Fprintf(out, "  %s\n", key)
	}
}

// writeTable prints the runs of each scenario and durability in one line. Times are those of each run.
func writeTable(out io.Writer, results []result) {
	fmt.Fprintln(out, "\n| scenario | durability | acknowledged | unknown | lost | double | longest time without an answer |"+
		" servers back after | then first write of every key | first flush of every shard | dashboard right |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for len(results) > 0 {
		first := results[0]
		n := 1
		for n < len(results) && results[n].scenario.name == first.scenario.name && results[n].durability == first.durability {
			n++
		}
		same := results[:n]
		results = results[n:]
		column := func(of func(r result) string) string {
			cells := make([]string, len(same))
			for i, r := range same {
				cells[i] = of(r)
			}
			return strings.Join(cells, ", ")
		}
		number := func(of func(r result) int64) string {
			return column(func(r result) string { return strconv.FormatInt(of(r), 10) })
		}
		duration := func(of func(r result) time.Duration) string {
			return column(func(r result) string { return seconds(of(r)) }) + " s"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", first.scenario.name, first.durability,
			number(func(r result) int64 { return r.acked }), number(func(r result) int64 { return r.unknown }),
			number(func(r result) int64 { return r.lost }), number(func(r result) int64 { return r.double }),
			duration(func(r result) time.Duration { return r.gap }), duration(func(r result) time.Duration { return r.down }),
			duration(func(r result) time.Duration { return r.write }),
			duration(func(r result) time.Duration { return r.flush }),
			duration(func(r result) time.Duration { return r.status }))
	}
}
