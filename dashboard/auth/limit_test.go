package auth

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTriesAtOnceThatAreTurnedAwayTakeNothing(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLimits(func() time.Time { return now })
	address := netip.MustParseAddr("192.0.2.1")
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for range 20 {
				l.take(address, "ann")
			}
		})
	}
	group.Wait()
	_, wait := l.take(address, "ann")
	require.Equal(t, addressEvery, wait, "the next try is due as if only ten had come")
	now = now.Add(addressEvery)
	_, wait = l.take(address, "ann")
	require.Zero(t, wait)
}
