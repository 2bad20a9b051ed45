package command

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

type historyCommand struct {
	After int64     `help:"Only operations with a later version."`
	From  time.Time `help:"Only operations at this time or later, such as 2026-01-31T12:00:00Z."`
	To    time.Time `help:"Only operations before this time."`
	Limit int       `default:"100"                                                               help:"The most operations, up to 1000."`

	Key string `arg:"" help:"The counter's key." name:"key"`
}

// Validate implements kong's check of a command line.
func (h historyCommand) Validate() error {
	if h.Limit < 1 || h.Limit > catalog.MaxHistory {
		return fmt.Errorf("--limit must be 1 to %d; it is %d", catalog.MaxHistory, h.Limit)
	}
	return nil
}

// Run implements the command.
func (h historyCommand) Run(w *world) error {
	keys, err := parseKeys(h.Key)
	if err != nil {
		return err
	}
	s, err := w.open("history", oneByOne)
	if err != nil {
		return err
	}
	defer s.Close()
	service := writepath.Open(writepath.Parts{Cache: s.Cache, Store: s.Store})
	defer service.Close()
	lists := catalog.New(catalog.Options{Cache: s.Cache, Store: s.Store, Counters: service})
	part, err := lists.History(w.ctx, keys[0], store.Span{After: h.After, From: h.From, To: h.To, Limit: h.Limit})
	if err != nil {
		return err
	}
	return h.print(w, part)
}

// print prints a table. A value that is not known is a question mark.
func (h historyCommand) print(w *world, part catalog.History) error {
	table := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tTIME\tOPERATION\tAMOUNT\tVALUE\tSYNCED\tCALLER\tREQUEST\tNOTE")
	for i := range part.Operations {
		r := &part.Operations[i]
		amount, value := "-", "?"
		if !r.Deleted {
			amount = strconv.FormatInt(r.Amount, 10)
		}
		if r.Known {
			value = strconv.FormatInt(r.Value, 10)
		}
		line := []string{
			strconv.FormatInt(r.Version, 10), r.At.UTC().Format("2006-01-02T15:04:05.000Z"), string(r.Change), amount, value,
			strconv.FormatBool(r.Synced),
			cmp.Or(r.Caller, "-"), cmp.Or(r.Request, "-"), cmp.Or(r.Note, "-"),
		}
		fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if part.More {
		return say(w, "later operations follow: --after %d shows them", part.Operations[len(part.Operations)-1].Version)
	}
	return nil
}
