package command

import (
	"strings"

	"github.com/afterwrite/afterwrite/api/auth"
)

// apiKeyCommand makes keys of the API.
type apiKeyCommand struct {
	New newAPIKeyCommand `cmd:"" help:"Make an API key, and the line for the settings."`
}

type newAPIKeyCommand struct {
	Scopes string `default:"read+write" help:"What the key may do: read, write and admin, joined by +."`

	Prefix string `help:"The beginning of the keys of all counters that it may use. Without it: all counters."`

	Name string `arg:"" help:"The name of whoever uses the key, for logs and metrics."`
}

// Run implements the command.
func (k newAPIKeyCommand) Run(w *world) error {
	key, line, err := auth.Generate(k.Name, k.Scopes, k.Prefix)
	if err != nil {
		return err
	}
	where := "AFTERWRITE_API_KEYS, or a line of AFTERWRITE_API_KEYS_FILE"
	if strings.Contains(k.Prefix, ",") {
		where = "a line of AFTERWRITE_API_KEYS_FILE, since a list cannot have a prefix with a comma"
	}
	return say(w, "The key, which is not shown again:\n%s\n\nFor %s:\n%s", key, where, line)
}
