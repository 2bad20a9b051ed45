package ops

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// redacted stands in the place of a secret.
const redacted = "***"

// Redactor takes secrets out of texts. The zero value knows none. It is safe for concurrent use.
type Redactor struct{ replacer *strings.Replacer }

// minSecretBytes is the shortest secret that is looked for: to take every "a" out of every line would hide more than the secret.
const minSecretBytes = 3

// NewRedactor returns a Redactor that knows secrets. Those of fewer than three bytes are left out.
func NewRedactor(secrets ...string) Redactor {
	secrets = slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return len(s) < minSecretBytes })
	if len(secrets) == 0 {
		return Redactor{}
	}
	// The longest first: one may be a part of another.
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

// attr is for slog.HandlerOptions.ReplaceAttr: it sees the message and every attribute, also those of groups.
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
		// Errors and the like. What they would look like in JSON is given up only where it holds a secret.
		if text := fmt.Sprintf("%+v", a.Value.Any()); r.Redact(text) != text {
			return slog.String(a.Key, r.Redact(text))
		}
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindGroup, slog.KindInt64, slog.KindLogValuer,
		slog.KindTime, slog.KindUint64:
	}
	return a
}
