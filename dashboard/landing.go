package dashboard

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

// landingView is where a counter lands, for key.html.
type landingView struct {
	Mapping, Row, Column string

	Value string // of the column
	Class health.Level
	Word  string // whether the column agrees with the counter's row
	Text  string // why, and what to do
	Error string // why the column cannot be read, or ""
}

func newLandingView(l store.Landing, err error) *landingView {
	v := &landingView{Mapping: l.Mapping.Name, Row: l.Row, Column: l.Mapping.Set}
	if err != nil {
		if failed, ok := errors.AsType[*store.MappingError](err); ok {
			err = failed.Err // without the mapping's name
		}
		v.Class, v.Word, v.Value, v.Error = health.Bad, "cannot be read", notKnown, err.Error()
		v.Text = "`afterwrite mappings check` says what to change."
		return v
	}
	switch {
	case !l.Exists:
		v.Value = "no such row"
	case l.Column == nil:
		v.Value = "NULL"
	default:
		v.Value = *l.Column
		if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil { // else it is a numeric beyond that
			v.Value = health.Number(n)
		}
	}
	v.Class, v.Word, v.Text = judgeLanding(l)
	return v
}

// judgeLanding says whether a column agrees with its counter's row.
func judgeLanding(l store.Landing) (level health.Level, word, text string) {
	switch {
	case l.Agrees:
		return health.Good, "agrees", ""
	case !l.Exists:
		return judgeMissing(l.Mapping)
	case !l.Counted && l.Column == nil:
		return "", "nothing to compare", "The table counters does not have the counter, which starts from 0."
	case !l.Counted:
		return "", "nothing to compare", "The table counters does not have the counter yet, which starts from this value."
	}
	return health.Warn, "differs", fmt.Sprintf("Something else has written the column, or the counter was flushed without the mapping. "+
		"The next flush of the counter overwrites it; `afterwrite mappings verify %s --repair` does it now.", l.Mapping.Name)
}

// judgeMissing says what happens to a counter without a row in its mapped table.
func judgeMissing(m *mapping.Mapping) (level health.Level, word, text string) {
	switch m.Missing {
	case mapping.Insert:
		return health.Warn, "no row", fmt.Sprintf("The next flush of the counter inserts it. If the counter was flushed before, "+
			"`afterwrite mappings backfill %s` does it now.", m.Name)
	case mapping.Dead:
		return health.Warn, "no row", "Flushes of the counter are refused, and it becomes a dead letter. Insert the row, then redrive it."
	case mapping.Ignore:
	}
	return "", "no row", fmt.Sprintf("Flushes write the counter to the table counters only. If you insert the row, "+
		"`afterwrite mappings backfill %s` writes the value into it.", m.Name)
}
