package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// Startup runs the checks for a process that is about to serve, and notes its settings in a Redis that is new. Warnings are
// logged. It returns an error, in one line that says what to do, when Redis is unfit: counters would be lost. An unfit
// or absent Postgres is logged only, because writes do not wait for it, and it may come back. It blocks for about 5 s at most.
func Startup(ctx context.Context, options Options, log *slog.Logger) error {
	if options.Layout != nil {
		// Two processes with different settings that start at the same moment on a new Redis must not both go on. What is
		// wrong with the settings is among the findings.
		noting, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		if err := options.Layout(noting); err != nil {
			log.Debug("settings not noted", "error", err)
		}
	}

	var refusals []string
	for _, f := range Run(ctx, options) {
		switch {
		case f.Status == OK:
			log.Debug("start-up check", "check", f.Name, "found", f.Detail)
		case f.Status == Refused && strings.HasPrefix(f.Name, "redis"):
			refusals = append(refusals, f.String())
		default:
			log.Warn("start-up check", "check", f.Name, "found", f.Detail, "fix", f.Fix)
		}
	}
	if len(refusals) > 0 {
		return fmt.Errorf("refusing to start: %s", strings.Join(refusals, "; "))
	}
	return nil
}
