package ops_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/ops"
)

func TestLoggerTakesSecretsOutOfEverything(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := ops.NewLogger(&out, format, "debug", "api", "hunter2", "a long secret", "a")
		require.NoError(t, err)

		log.With("with", "hunter2").WithGroup("g").Warn("dial hunter2", "url", "redis://:hunter2@h",
			"error", fmt.Errorf("dial: %w", errors.New("hunter2 refused")), "n", 1, slog.Group("inner", "x", "a long secret"),
			"struct", struct{ Password string }{"hunter2"}, "list", []string{"hunter2"}, "none", nil)

		require.NotContains(t, out.String(), "hunter2")
		require.NotContains(t, out.String(), "long secret")
		require.Contains(t, out.String(), "dial ***")
		require.Contains(t, out.String(), "redis://:***@h")
		require.Contains(t, out.String(), "refused", "the rest of the error stays")
	}
}

func TestRedactorTakesTheLongestSecretFirst(t *testing.T) {
	t.Parallel()
	require.Equal(t, "x *** y ***", ops.NewRedactor("abc", "abcdef", "abc", "").Redact("x abcdef y abc"))
	require.Equal(t, "abc", ops.Redactor{}.Redact("abc"))
	require.Equal(t, "ab", ops.NewRedactor("ab").Redact("ab"), "too short to be looked for")
}
