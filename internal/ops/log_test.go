package ops_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/ops"
)

func TestLoggerWritesTheProcessOnEveryLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := ops.NewLogger(&out, "text", "info", "worker")
	require.NoError(t, err)
	log.Info("flushed", "keys", 3)

	require.Contains(t, out.String(), "process=worker")
	require.Contains(t, out.String(), "keys=3")
}

func TestLoggerWritesJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := ops.NewLogger(&out, "json", "info", "api")
	require.NoError(t, err)
	log.Info("ready")

	var record map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &record))
	require.Equal(t, "api", record["process"])
	require.Equal(t, "ready", record["msg"])
}

func TestLoggerLeavesOutWhatIsBelowItsLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer

	log, err := ops.NewLogger(&out, "text", "warn", "api")
	require.NoError(t, err)
	log.Info("not shown")
	log.Warn("shown")

	require.NotContains(t, out.String(), "not shown")
	require.Contains(t, out.String(), "shown")
}

func TestLoggerRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()

	_, err := ops.NewLogger(&bytes.Buffer{}, "xml", "info", "api")
	require.ErrorContains(t, err, "text or json")
	_, err = ops.NewLogger(&bytes.Buffer{}, "text", "loud", "api")
	require.ErrorContains(t, err, "debug, info, warn or error")
}
