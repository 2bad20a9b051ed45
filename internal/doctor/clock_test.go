package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClocksMoreThanASecondApartAreAWarning(t *testing.T) {
	t.Parallel()
	before := time.Unix(1000, 0)
	for _, test := range []struct {
		skew, roundTrip time.Duration
		want            Status
		detail          string
	}{
		{0, 0, OK, "0s ahead"},
		{900 * time.Millisecond, 10 * time.Millisecond, OK, "900ms ahead"},
		{2 * time.Second, 10 * time.Millisecond, Warning, "2s ahead"},
		{-2 * time.Second, 10 * time.Millisecond, Warning, "2s behind"},
		// The answer took so long that it tells nothing.
		{1500 * time.Millisecond, 2 * time.Second, OK, "±1s"},
		{-time.Hour, 2 * time.Second, Warning, "1h0m0s behind"},
	} {
		there := before.Add(test.roundTrip / 2).Add(test.skew)

		f := checkClock("redis clock", before, there, before.Add(test.roundTrip))

		require.Equal(t, test.want, f.Status, "%+v", test)
		require.Contains(t, f.Detail, test.detail)
		require.Equal(t, test.want == Warning, f.Fix != "")
	}
}
