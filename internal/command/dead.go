package command

import (
	"fmt"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/deadletter"
)

// deadCommand is what operators do about dead letters; each subcommand is in a file of its own.
type deadCommand struct {
	List    deadListCommand    `cmd:"" help:"List the dead letters."`
	Show    deadShowCommand    `cmd:"" help:"Show everything about one."`
	Redrive deadRedriveCommand `cmd:"" help:"Try them again, after the cause was mended."`
	Discard deadDiscardCommand `cmd:"" help:"Drop what Postgres refused, and return the counter to Postgres's value."`
}

// deadBox is the dead letters, and the connections that lead there.
type deadBox struct {
	*deadletter.Box

	close func()
}

// openDead returns the dead letters of the Redis and Postgres that the environment names.
func openDead(w *world) (*deadBox, error) {
	s, err := w.open("dead", oneByOne)
	if err != nil {
		return nil, err
	}
	box := deadletter.New(deadletter.Options{Cache: s.Cache, Store: s.Store, Redis: s.Redis, Logger: s.Log})
	return &deadBox{Box: box, close: s.Close}, nil
}

// parseKeys checks keys that were given as arguments.
func parseKeys(args []string) ([]counter.Key, error) {
	keys := make([]counter.Key, len(args))
	for i, arg := range args {
		key, err := counter.ParseKey(arg)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", arg, err)
		}
		keys[i] = key
	}
	return keys, nil
}

// maxNamed bounds how many keys a line names.
const maxNamed = 20

// named lists keys for a line of text.
func named(keys []counter.Key) string {
	var b strings.Builder
	for i, key := range keys {
		if i == maxNamed {
			fmt.Fprintf(&b, " and %d more", len(keys)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(key))
	}
	return b.String()
}

// unreadPostgres says on stderr why Postgres's side is not shown.
func unreadPostgres(w *world, unread error) {
	if unread != nil {
		fmt.Fprintf(w.stderr, "afterwrite: postgres did not answer, so what it has is shown as \"?\": %s\n", oneLine(unread.Error()))
	}
}

// oneLine makes text from elsewhere fit for a table and a terminal: no line breaks, no control characters.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }), " ")
}
