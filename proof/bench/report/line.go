// Package report turns measurements into figures, verdicts, a table and plots.
//
//	line := report.Line{What: "...", Subject: report.Side{Name: "afterwrite", Unit: report.PerSecond, Rounds: rates}, ...}
//	figure, err := line.Figure()      // medians, and the median of the rounds' ratios
//	text, err := report.Table(lines)  // Markdown
//
// A Line with a Problem shows no figures.
package report

import (
	"errors"
	"fmt"
	"slices"
)

// Side holds the figures of one system in a Line.
type Side struct {
	Name   string    `json:"name"`
	Unit   Unit      `json:"unit"`
	Rounds []float64 `json:"rounds"` // one figure for each round
}

// Goal is a bound for a Line. The zero Goal means no goal.
type Goal struct {
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	// Absolute applies the goal to the subject's figure instead of the ratio.
	Absolute bool `json:"absolute,omitempty"`
}

// Line compares afterwrite, the subject, with a peer.
type Line struct {
	ID      string `json:"id"` // the flag -only matches it
	What    string `json:"what"`
	Subject Side   `json:"subject"`
	Peer    Side   `json:"peer"` // without a Name there is no peer
	Goal    Goal   `json:"goal"`
	// Problem is the error of a run that this Line needs. A Line with a Problem has no figures.
	Problem string `json:"problem,omitempty"`
}

// Verdict tells whether a goal was met.
type Verdict string

// The verdicts.
const (
	Meets   Verdict = "meets"
	Misses  Verdict = "misses"
	Printed Verdict = "printed" // no goal
	Broken  Verdict = "failed"
)

// Figure is the result of a Line.
type Figure struct {
	Subject float64 `json:"subject"` // median of the rounds
	Peer    float64 `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // median over the rounds of subject / peer
	Min     float64 `json:"min"`             // of the ratios; without a peer, of the subject's figures
	Max     float64 `json:"max"`
	Verdict Verdict `json:"verdict"`
}

// errRounds means that the rounds of a Line cannot be compared.
var errRounds = errors.New("rounds do not match")

// Figure calculates the result. Both systems run under the same conditions in a round, so each round gives a ratio, and the result is
// the median of the ratios. A Line with a Problem is Broken. It is an error if there are no rounds, if the two sides have different
// numbers of rounds, or if a figure of the peer is not positive.
func (l Line) Figure() (Figure, error) {
	if l.Problem != "" {
		return Figure{Verdict: Broken}, nil
	}
	if len(l.Subject.Rounds) == 0 {
		return Figure{}, fmt.Errorf("%s: %w: there are no rounds", l.ID, errRounds)
	}
	f := Figure{Subject: Median(l.Subject.Rounds), Min: slices.Min(l.Subject.Rounds), Max: slices.Max(l.Subject.Rounds)}
	if l.Peer.Name != "" {
		if len(l.Peer.Rounds) != len(l.Subject.Rounds) {
			return Figure{}, fmt.Errorf("%s: %w: the subject has %d, the peer has %d",
				l.ID, errRounds, len(l.Subject.Rounds), len(l.Peer.Rounds))
		}
		ratios := make([]float64, len(l.Subject.Rounds))
		for i, figure := range l.Subject.Rounds {
			if l.Peer.Rounds[i] <= 0 {
				return Figure{}, fmt.Errorf("%s: %w: the peer has %v in round %d", l.ID, errRounds, l.Peer.Rounds[i], i+1)
			}
			ratios[i] = figure / l.Peer.Rounds[i]
		}
		f.Peer, f.Ratio = Median(l.Peer.Rounds), Median(ratios)
		f.Min, f.Max = slices.Min(ratios), slices.Max(ratios)
	}
	f.Verdict = l.Goal.verdict(l.judged(f))
	return f, nil
}

// absolute reports whether the goal applies to the subject's figure, not to the ratio.
func (l Line) absolute() bool { return l.Goal.Absolute || l.Peer.Name == "" }

// judged returns the figure that the goal applies to.
func (l Line) judged(f Figure) float64 {
	if l.absolute() {
		return f.Subject
	}
	return f.Ratio
}

func (g Goal) verdict(figure float64) Verdict {
	switch {
	case g.AtLeast == 0 && g.AtMost == 0:
		return Printed
	case g.AtLeast != 0 && figure < g.AtLeast, g.AtMost != 0 && figure > g.AtMost:
		return Misses
	default:
		return Meets
	}
}

// Median returns the median of the values, and 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Count holds the numbers of writes in a run: the counters' sum, the server's own count, and the load generator's.
type Count struct {
	// Stored is the increase of the sum of all counters, after the drain.
	Stored int64 `json:"stored"`
	// Acknowledged is the server's own count of accepted writes; -1 if the server does not count.
	Acknowledged int64 `json:"acknowledged"`
	// Unknown is the number of other writes whose answer was outcome_unknown: they may or may not have been applied. The load generator
	// causes them when it closes its connections.
	Unknown int64 `json:"unknown"`
	// Load is the number of writes that were answered, as the load generator counted them.
	Load int64 `json:"load"`
	// Cut is the maximum number of writes whose answer the load generator did not read, because it closed the connection. Each
	// connection can miss one answer, with all operations of the request.
	Cut int64 `json:"cut"`
}

// Check returns an error if no write was answered, or if the counts contradict each other: Stored may exceed Acknowledged by at most
// Unknown and Load by at most Cut, and Unknown may not exceed Cut. An Acknowledged of -1 is not compared.
func (c Count) Check() error {
	switch missed := c.Stored - c.Load; {
	case c.Load <= 0:
		return errors.New("no write was answered")
	case c.Acknowledged >= 0 && (c.Stored < c.Acknowledged || c.Stored > c.Acknowledged+c.Unknown):
		return fmt.Errorf("%d acknowledged and %d with an unknown outcome, but %d stored", c.Acknowledged, c.Unknown, c.Stored)
	case c.Unknown > c.Cut:
		return fmt.Errorf("%d with an unknown outcome, but at most %d can have been cut off", c.Unknown, c.Cut)
	case missed < 0:
		return fmt.Errorf("%d answered, but only %d stored", c.Load, c.Stored)
	case missed > c.Cut:
		return fmt.Errorf("%d stored, but only %d answered and at most %d cut off", c.Stored, c.Load, c.Cut)
	}
	return nil
}
