package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNumberGroupsDigits(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -5: "-5", -123456: "-123,456",
	} {
		require.Equal(t, want, Number(n))
	}
}

func TestAgeHasTwoOrThreeSignificantDigits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 40 * time.Millisecond: "0 s", 440 * time.Millisecond: "0.4 s",
		12300 * time.Millisecond: "12 s", 95*time.Second + 400*time.Millisecond: "1 min 35 s", 3 * time.Minute: "3 min",
		34*time.Minute + 10*time.Second: "34 min", 3*time.Hour + 5*time.Minute: "3 h 5 min", 51 * time.Hour: "2 d 3 h",
	} {
		require.Equal(t, want, Age(d))
	}
}

func TestCountUsesTheSingularForOne(t *testing.T) {
	t.Parallel()
	require.Equal(t, "1 key", Count(1, "key", "keys"))
	require.Equal(t, "1,000 keys", Count(1000, "key", "keys"))
}

func TestRateRoundsLargeNumbers(t *testing.T) {
	t.Parallel()
	for perSecond, want := range map[float64]string{0: "0", -1: "0", 0.01: "<0.1", 0.44: "0.4", 7.04: "7", 7.5: "7.5", 1203.6: "1,204"} {
		require.Equal(t, want, Rate(perSecond))
	}
}
