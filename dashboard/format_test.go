package dashboard

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/operate"
)

func TestNumberGroupsDigits(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -5: "-5", -123456: "-123,456",
	} {
		require.Equal(t, want, number(n))
	}
}

func TestSignedSaysPlus(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "+0", 1234567: "+1,234,567", -1234: "-1,234"} {
		require.Equal(t, want, signed(n))
	}
}

func TestNumbersOfASideAreGrouped(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]operate.Stored{
		"12,345 (version 6,789)":                    {State: operate.StateValue, Value: 12345, Version: 6789},
		"deleted (version 6,789)":                   {State: operate.StateDeleted, Version: 6789},
		"-1,234 by 1,000 writes on an unknown base": {State: operate.StateUnknownBase, Value: -1234, Version: 1000},
		"none": {State: operate.StateNone},
	} {
		require.Equal(t, want, storedText(s))
		require.Equal(t, s.String(), strings.ReplaceAll(want, ",", ""), "but for the numbers it is what the command says")
	}
}

func TestAgeShowsThePrecisionThatMatters(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 40 * time.Millisecond: "0 s", 440 * time.Millisecond: "0.4 s",
		12300 * time.Millisecond: "12 s", 95*time.Second + 400*time.Millisecond: "1 min 35 s", 3 * time.Minute: "3 min",
		34*time.Minute + 10*time.Second: "34 min", 3*time.Hour + 5*time.Minute: "3 h 5 min", 51 * time.Hour: "2 d 3 h",
	} {
		require.Equal(t, want, age(d))
	}
}

func TestRateAndSizeHaveUnits(t *testing.T) {
	t.Parallel()
	for perSecond, want := range map[float64]string{0: "0", -1: "0", 0.01: "<0.1", 0.44: "0.4", 7.04: "7", 7.5: "7.5", 1203.6: "1,204"} {
		require.Equal(t, want, rate(perSecond))
	}
	for bytes, want := range map[int64]string{0: "0 B", 999: "999 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 250 << 20: "250 MiB"} {
		require.Equal(t, want, size(bytes))
	}
}

func TestCodeEscapesAllOfIt(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, "see <code>a &lt;b&gt;</code> &amp; c", code("see `a <b>` & c"))
}

func TestCountKnowsOne(t *testing.T) {
	t.Parallel()
	require.Equal(t, "1 key", count(1, "key", "keys"))
	require.Equal(t, "1,000 keys", count(1000, "key", "keys"))
}
