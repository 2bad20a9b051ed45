package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// bench is one execution of this program.
type bench struct {
	settings

	world  *world.World
	stages map[world.StageOptions]*world.Stage
	stdout io.Writer
	round  int
	notes  notes
	// cpu is the CPU time per 1,000,000 increments, by distribution of the keys and part of afterwrite.
	cpu map[string]map[string][]float64
}

// notes are the measurements.
type notes struct {
	figures  map[string][]float64      // by name, one figure for each round
	counts   map[string][]report.Count // by run, one count for each round
	problems map[string]string         // by run, its first error
}

// note records a figure of this round.
func (b *bench) note(name string, figure float64) {
	b.notes.figures[name] = append(b.notes.figures[name], figure)
}

// errSum means that a run failed a check other than report.Count's.
var errSum = errors.New("unexpected rows or keys")

// check records the counts of a run, and returns an error unless they add up.
func (b *bench) check(name string, count report.Count) error {
	b.notes.counts[name] = append(b.notes.counts[name], count)
	return count.Check()
}

// measure executes the benchmark. It returns an error if the benchmark failed, or if a run failed or did not add up.
func measure(ctx context.Context, s settings, stdout io.Writer) (err error) {
	machine := describeMachine(ctx)
	b := &bench{
		settings: s, stdout: stdout, stages: make(map[world.StageOptions]*world.Stage), cpu: make(map[string]map[string][]float64),
		notes: notes{
			figures: make(map[string][]float64), counts: make(map[string][]report.Count), problems: make(map[string]string),
		},
	}
	chosen := b.chosen()
	if len(chosen) == 0 {
		return errors.New("-only matches no comparison")
	}
	// All systems connect to Redis by a unix socket and to Postgres by TCP. Both servers write durably.
	b.world, err = world.New(ctx, world.Options{
		Name: "bench", Previous: b.previousOf(chosen),
		Redis: local.RedisOptions{Socket: true}, Postgres: local.PostgresOptions{Fsync: true},
	})
	defer func() { err = errors.Join(err, b.world.Close()) }()
	if err != nil {
		return err
	}
	if err := load.Build(ctx, b.world.Dir); err != nil {
		return err
	}
	if s.profile {
		return b.takeProfiles(ctx)
	}
	began := time.Now()
	if err := b.everyRound(ctx, chosen); err != nil {
		return err
	}
	return b.publish(chosen, machine, time.Since(began))
}

// previousOf returns the commit of the previous version, or "" if no comparison needs it. Then the clone may be shallow.
func (b *bench) previousOf(chosen []comparison) string {
	needs := func(c comparison) bool { return strings.Contains(c.peer, "/"+string(world.Previous)+"/") }
	if b.profile || !slices.ContainsFunc(chosen, needs) {
		return ""
	}
	return previousCommit
}

// chosen returns the comparisons that -only matches.
func (b *bench) chosen() []comparison {
	var chosen []comparison
	for _, c := range comparisons(b.full) {
		if b.only.MatchString(c.id) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// wanted reports whether a chosen comparison uses a figure.
func (b *bench) wanted(figure string) bool {
	return slices.ContainsFunc(b.chosen(), func(c comparison) bool { return c.subject == figure || c.peer == figure })
}

// everyRound executes the needed runs in all rounds.
func (b *bench) everyRound(ctx context.Context, chosen []comparison) error {
	for b.round = range b.rounds {
		for _, group := range groups() {
			group = needed(group, chosen, b.only.String() == "")
			if len(group) == 0 {
				continue
			}
			for _, r := range rotated(group, b.round) {
				if err := b.execute(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// needed returns the runs that the comparisons use and, with plots, also the runs that only a plot uses.
func needed(group []run, chosen []comparison, plots bool) []run {
	var wanted []run
	for _, r := range group {
		use := plots && strings.HasPrefix(r.name, "latency-")
		for _, c := range chosen {
			use = use || strings.HasPrefix(c.subject, r.name+"/") || strings.HasPrefix(c.peer, r.name+"/")
		}
		if use {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// execute executes a run in one round, and records its error. It returns an error only if ctx is done.
func (b *bench) execute(ctx context.Context, r run) error {
	if _, failed := b.notes.problems[r.name]; failed || r.rounds > 0 && b.round >= r.rounds {
		return nil
	}
	began := time.Now()
	err := errors.Join(r.do(ctx, b), b.stopAll())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	outcome := "done"
	if err != nil {
		b.notes.problems[r.name] = err.Error()
		outcome = err.Error()
	}
	fmt.Fprintf(b.stdout, "round %d of %d  %-20s %5.1f s  %s\n",
		b.round+1, b.rounds, r.name, time.Since(began).Seconds(), outcome)
	return nil
}

// stopAll stops the processes of all stages.
func (b *bench) stopAll() error {
	var err error
	for _, s := range b.stages {
		err = errors.Join(err, s.StopAll())
	}
	return err
}

// stage returns the stage with these options. The first call creates it.
func (b *bench) stage(ctx context.Context, o world.StageOptions) (*world.Stage, error) {
	if s, ok := b.stages[o]; ok {
		return s, nil
	}
	s, err := b.world.Stage(ctx, o)
	if err == nil {
		b.stages[o] = s
	}
	return s, err
}

// lines returns the comparisons with their figures.
func (b *bench) lines(chosen []comparison) []report.Line {
	lines := make([]report.Line, len(chosen))
	for i, c := range chosen {
		lines[i] = report.Line{
			ID: c.id, What: c.what, Goal: c.goal,
			Subject: report.Side{Name: "afterwrite", Unit: c.unit, Rounds: b.notes.figures[c.subject]},
			Peer:    report.Side{Name: c.peerName, Unit: c.unit, Rounds: b.notes.figures[c.peer]},
			Problem: cmp.Or(b.problem(c.subject), b.problem(c.peer)),
		}
		// If one side was measured only in the first rounds, compare it with the same rounds of the other side.
		if subject, peer := &lines[i].Subject, &lines[i].Peer; c.peer != "" {
			least := min(len(subject.Rounds), len(peer.Rounds))
			subject.Rounds, peer.Rounds = subject.Rounds[:least], peer.Rounds[:least]
		}
	}
	return lines
}

// problem returns the error of the run that measures a figure; "" if there is none.
func (b *bench) problem(figure string) string {
	for name, problem := range b.notes.problems {
		if strings.HasPrefix(figure, name+"/") {
			return problem
		}
	}
	return ""
}
