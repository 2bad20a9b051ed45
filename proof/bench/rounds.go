package main

import (
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
	// cpu is the CPU time of each process per 1,000,000 increments, by keys and process.
	cpu map[string]map[string][]float64
}

// notes are the measurements: by name a figure for each round, and by run the counts and the first problem.
type notes struct {
	figures  map[string][]float64
	counts   map[string][]report.Count
	problems map[string]string
}

// note keeps a figure of this round.
func (b *bench) note(name string, figure float64) {
	b.notes.figures[name] = append(b.notes.figures[name], figure)
}

// errSum means that a run does not add up, in a way that report.Count does not check.
var errSum = errors.New("not the rows and keys that there should be")

// check records the counts of a run, and returns an error unless they add up.
func (b *bench) check(name string, count report.Count) error {
	b.notes.counts[name] = append(b.notes.counts[name], count)
	return count.Check()
}

// measure executes the benchmark. An error means that it could not be executed, or that a run did not add up.
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
	// All systems reach Redis by a unix socket and Postgres by TCP. Both are durable.
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

// previousOf is the commit of the previous version if one of the comparisons needs it. Otherwise a shallow clone is enough.
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

// wanted reports whether one of the chosen comparisons uses a figure.
func (b *bench) wanted(figure string) bool {
	return slices.ContainsFunc(b.chosen(), func(c comparison) bool { return c.this == figure || c.peer == figure })
}

// everyRound executes the runs that the comparisons need.
func (b *bench) everyRound(ctx context.Context, chosen []comparison) error {
	for b.round = range b.rounds {
		for _, group := range groups() {
			group = needed(group, chosen, b.only.String() == "")
			if len(group) == 0 {
				continue
			}
			for _, r := range rotated(group, b.round) {
				if err := b.carryOut(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// needed returns the runs that the comparisons use and, with plots, those that only a plot uses.
func needed(group []run, chosen []comparison, plots bool) []run {
	var wanted []run
	for _, r := range group {
		use := plots && strings.HasPrefix(r.name, "latency-")
		for _, c := range chosen {
			use = use || strings.HasPrefix(c.this, r.name+"/") || strings.HasPrefix(c.peer, r.name+"/")
		}
		if use {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// carryOut executes a run in one round. Its error is recorded and the other runs go on; only an interruption ends them all.
func (b *bench) carryOut(ctx context.Context, r run) error {
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

// stopAll ends the processes of all stages.
func (b *bench) stopAll() error {
	var err error
	for _, s := range b.stages {
		err = errors.Join(err, s.StopAll())
	}
	return err
}

// stage returns the stage with those options; the first call makes it.
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

// lines are the comparisons with their figures.
func (b *bench) lines(chosen []comparison) []report.Line {
	lines := make([]report.Line, len(chosen))
	for i, c := range chosen {
		lines[i] = report.Line{
			ID: c.id, What: c.what, Goal: c.goal,
			This:    report.Side{Name: "afterwrite", Unit: c.unit, Rounds: b.notes.figures[c.this]},
			Peer:    report.Side{Name: c.peerName, Unit: c.unit, Rounds: b.notes.figures[c.peer]},
			Problem: b.problem(c),
		}
		// A side that is measured in the first rounds only is compared with the same rounds of the other.
		if this, peer := &lines[i].This, &lines[i].Peer; c.peer != "" {
			least := min(len(this.Rounds), len(peer.Rounds))
			this.Rounds, peer.Rounds = this.Rounds[:least], peer.Rounds[:least]
		}
	}
	return lines
}

// problem is the error of a run that the comparison uses; "" if there is none.
func (b *bench) problem(c comparison) string {
	for name, problem := range b.notes.problems {
		if strings.HasPrefix(c.this, name+"/") || strings.HasPrefix(c.peer, name+"/") {
			return problem
		}
	}
	return ""
}
