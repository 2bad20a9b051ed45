package report

import (
	"errors"
	"fmt"
	"slices"
)

// Side is one of the two systems that a line compares.
type Side struct {
	Name   string    `json:"name"`
	Unit   Unit      `json:"unit"`
	Rounds []float64 `json:"rounds"` // one figure for each round
}

// Goal is a bound for a line. The zero Goal is none.
type Goal struct {
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	// OfThis applies the goal to this side's own figure instead of the ratio.
	OfThis bool `json:"of_this,omitempty"`
}

// Line is one comparison.
type Line struct {
	ID   string `json:"id"` // what -only matches
	What string `json:"what"`
	This Side   `json:"this"`
	Peer Side   `json:"peer"` // an empty Name: there is none
	Goal Goal   `json:"goal"`
	// Problem says why there is no figure: a run of it did not add up, or failed.
	Problem string `json:"problem,omitempty"`
}

// Verdict says whether a goal was reached.
type Verdict string

// The verdicts.
const (
	Meets   Verdict = "meets"
	Misses  Verdict = "misses"
	Printed Verdict = "printed" // there is no goal
	Broken  Verdict = "does not add up"
)

// Figure is the result of a line.
type Figure struct {
	This    float64 `json:"this"` // medians of the rounds
	Peer    float64 `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // the median of the rounds' ratios, this to peer
	Min     float64 `json:"min"`             // of the ratios; without a peer, of this side's figures
	Max     float64 `json:"max"`
	Verdict Verdict `json:"verdict"`
}

// errRounds is a line whose rounds cannot be compared.
var errRounds = errors.New("rounds do not match")

// Figure calculates the result. Each round gives a ratio, because both systems met the same conditions in it; the result is the
// median of the ratios. A line with a Problem is Broken and has no figures. It is an error if there are no rounds, if their numbers
// differ, or if the peer's figure is 0.
func (l Line) Figure() (Figure, error) {
	if l.Problem != "" {
		return Figure{Verdict: Broken}, nil
	}
	if len(l.This.Rounds) == 0 {
		return Figure{}, fmt.Errorf("%s: %w: there are none", l.ID, errRounds)
	}
	f := Figure{This: Median(l.This.Rounds), Min: slices.Min(l.This.Rounds), Max: slices.Max(l.This.Rounds)}
	if l.Peer.Name != "" {
		if len(l.Peer.Rounds) != len(l.This.Rounds) {
			return Figure{}, fmt.Errorf("%s: %w: %d and %d", l.ID, errRounds, len(l.This.Rounds), len(l.Peer.Rounds))
		}
		ratios := make([]float64, len(l.This.Rounds))
		for i, this := range l.This.Rounds {
			if l.Peer.Rounds[i] <= 0 {
				return Figure{}, fmt.Errorf("%s: %w: the peer has %v in round %d", l.ID, errRounds, l.Peer.Rounds[i], i+1)
			}
			ratios[i] = this / l.Peer.Rounds[i]
		}
		f.Peer, f.Ratio = Median(l.Peer.Rounds), Median(ratios)
		f.Min, f.Max = slices.Min(ratios), slices.Max(ratios)
	}
	f.Verdict = l.Goal.verdict(l.judged(f))
	return f, nil
}

// judged is the figure that the goal applies to.
func (l Line) judged(f Figure) float64 {
	if l.Goal.OfThis || l.Peer.Name == "" {
		return f.This
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

// Median is the middle one of the values, or the mean of the two in the middle; 0 of none.
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
