package dashboard

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/operate"
)

func TestSignedNumbersHaveAPlus(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "+0", 1234567: "+1,234,567", -1234: "-1,234"} {
		require.Equal(t, want, signed(n))
	}
}

func TestNumbersOfStoredStatesAreGrouped(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]operate.Stored{
		"12,345 (version 6,789)":                    {State: operate.StateValue, Value: 12345, Version: 6789},
		"deleted (version 6,789)":                   {State: operate.StateDeleted, Version: 6789},
		"-1,234 by 1,000 writes on an unknown base": {State: operate.StateUnknownBase, Value: -1234, Version: 1000},
		"none": {State: operate.StateNone},
	} {
		require.Equal(t, want, storedText(s))
		require.Equal(t, s.String(), strings.ReplaceAll(want, ",", ""), "only the grouping differs from the command's text")
	}
}

func TestSizeHasUnits(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]string{0: "0 B", 999: "999 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 250 << 20: "250 MiB"} {
		require.Equal(t, want, size(bytes))
	}
}

func TestCodeEscapesHTML(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, "see <code>a &lt;b&gt;</code> &amp; c", code("see `a <b>` & c"))
}
