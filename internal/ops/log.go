package ops

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes to w, one line per record, each with the attribute process. format is text or
// json, level debug, info, warn or error: what config.Config has checked. secrets (see config.Secrets) are taken out of every
// line, whatever library put them into its error. It is safe for concurrent use.
func NewLogger(w io.Writer, format, level, process string, secrets ...string) (*slog.Logger, error) {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: it takes debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: threshold}
	if redactor := NewRedactor(secrets...); redactor.replacer != nil {
		options.ReplaceAttr = redactor.attr
	}

	var handler slog.Handler
	switch format {
	case "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, fmt.Errorf("log format %q: it takes text or json", format)
	}
	return slog.New(handler).With("process", process), nil
}
