package process

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// newLogger returns a logger that writes to w, one line per record, each with the attribute process. format is text or
// json; level is debug, info, warn or error. It replaces secrets (see config.Secrets) in every line, including those in the
// errors of libraries. It is safe for concurrent use.
func newLogger(w io.Writer, format, level, process string, secrets ...string) (*slog.Logger, error) {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("the log level must be debug, info, warn or error; it is %q", level)
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
		return nil, fmt.Errorf("the log format must be text or json; it is %q", format)
	}
	return slog.New(handler).With("process", process), nil
}

// redacted replaces a secret.
const redacted = "***"

// minSecretBytes is the length of the shortest secret that is replaced. Replacing every "a" would make the log unreadable.
const minSecretBytes = 3

// Redactor replaces secrets in text. The zero value replaces nothing. It is safe for concurrent use.
type Redactor struct{ replacer *strings.Replacer }

// NewRedactor returns a Redactor of secrets. It ignores secrets of less than three bytes.
func NewRedactor(secrets ...string) Redactor {
	secrets = slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return len(s) < minSecretBytes })
	if len(secrets) == 0 {
		return Redactor{}
	}
	// Longest first, since a secret may contain another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(secrets))
	for _, s := range slices.Compact(secrets) {
		pairs = append(pairs, s, redacted)
	}
	return Redactor{replacer: strings.NewReplacer(pairs...)}
}

// Redact returns text without the secrets.
func (r Redactor) Redact(text string) string {
	if r.replacer == nil {
		return text
	}
	return r.replacer.Replace(text)
}

// attr is a slog.HandlerOptions.ReplaceAttr: slog calls it for the message and every attribute, including those in groups.
func (r Redactor) attr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		if text := a.Value.String(); r.Redact(text) != text {
			return slog.String(a.Key, r.Redact(text))
		}
	case slog.KindAny:
		if a.Key == slog.SourceKey || a.Value.Any() == nil {
			return a
		}
		// Errors and structs. They become strings only if they contain a secret.
		if text := fmt.Sprintf("%+v", a.Value.Any()); r.Redact(text) != text {
			return slog.String(a.Key, r.Redact(text))
		}
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindGroup, slog.KindInt64, slog.KindLogValuer,
		slog.KindTime, slog.KindUint64:
	}
	return a
}
