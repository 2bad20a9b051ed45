package dashboard

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
		require.Equal(t, want, number(n))
	}
}

func TestAgeShowsThePrecisionThatMatters(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 440 * time.Millisecond: "0.4 s", 12300 * time.Millisecond: "12 s",
		95*time.Second + 400*time.Millisecond: "1m35s", 3 * time.Hour: "3h0m0s",
	} {
		require.Equal(t, want, age(d))
	}
}
