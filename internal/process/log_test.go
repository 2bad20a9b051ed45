package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoggerWritesTheProcessOnEveryLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := newLogger(&out, "text", "info", "worker")
	require.NoError(t, err)
	log.Info("flushed", "keys", 3)

	require.Contains(t, out.String(), "process=worker")
	require.Contains(t, out.String(), "keys=3")
}

func TestLoggerWritesJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := newLogger(&out, "json", "info", "api")
	require.NoError(t, err)
	log.Info("ready")

	var record map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &record))
	require.Equal(t, "api", record["process"])
	require.Equal(t, "ready", record["msg"])
}

func TestLoggerOmitsLinesBelowItsLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := newLogger(&out, "text", "warn", "api")
	require.NoError(t, err)
	log.Info("not shown")
	log.Warn("shown")

	require.NotContains(t, out.String(), "not shown")
	require.Contains(t, out.String(), "shown")
}

func TestUnknownFormatsAndLevelsAreErrors(t *testing.T) {
	t.Parallel()

	_, err := newLogger(&bytes.Buffer{}, "xml", "info", "api")
	require.ErrorContains(t, err, "text or json")
	_, err = newLogger(&bytes.Buffer{}, "text", "loud", "api")
	require.ErrorContains(t, err, "debug, info, warn or error")
}

func TestLoggerRedactsSecretsEverywhere(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, format, "debug", "api", "hunter2", "a long secret", "a")
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

func TestRedactorReplacesTheLongestSecretFirst(t *testing.T) {
	t.Parallel()
	require.Equal(t, "x *** y ***", NewRedactor("abc", "abcdef", "abc", "").Redact("x abcdef y abc"))
	require.Equal(t, "abc", Redactor{}.Redact("abc"))
	require.Equal(t, "ab", NewRedactor("ab").Redact("ab"), "too short to be replaced")
}
