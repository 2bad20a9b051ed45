package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
)

// operator is an operator's service, and the servers that it works on.
type operator struct {
	*operate.Service

	servers *process.Servers
}

// openOperator opens the servers that the environment names; see world.open. The caller closes them.
func openOperator(w *world, name string, pools process.Pools) (*operator, error) {
	s, err := w.open(name, pools)
	if err != nil {
		return nil, err
	}
	return &operator{
		Service: operate.New(operate.Options{Cache: s.Cache, Store: s.Store, Redis: s.Redis, Logger: s.Log}), servers: s,
	}, nil
}

func (o *operator) close() { o.servers.Close() }

// parseKeys checks keys that were given as arguments.
func parseKeys(args ...string) ([]counter.Key, error) {
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

// oneLine makes text from elsewhere fit for a table and a terminal: no line breaks, no control characters.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }), " ")
}

// printJSON writes value for people and programs: indented, and with < and > as they are.
func printJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
