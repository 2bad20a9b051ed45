package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

func TestSameSeedGivesTheSameSchedule(t *testing.T) {
	t.Parallel()
	first, again := newSchedule(7, time.Minute, ""), newSchedule(7, time.Minute, "")
	require.Equal(t, first, again)
	require.NotEqual(t, newSchedule(7, time.Minute, ""), newSchedule(8, time.Minute, ""))
}

func TestScheduleKillsOftenButNeverATargetThatIsDown(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		kills := 0
		free := make(map[string]time.Duration)
		for _, f := range newSchedule(seed, 3*time.Minute, "") {
			require.GreaterOrEqual(t, f.at, free[f.target], "seed %d: %s", seed, f)
			free[f.target] = f.at + f.lasts
			if f.kind == faultKill {
				kills++
			}
		}
		require.GreaterOrEqual(t, kills, 3*8, "seed %d", seed)
	}
}

func TestOutageScheduleHasOneFaultAndTimeToDrain(t *testing.T) {
	t.Parallel()
	s, err := parse([]string{"-outage", "60s"})
	require.NoError(t, err)
	faults := s.schedule()
	require.Len(t, faults, 1)
	require.Equal(t, targetPostgres, faults[0].target)
	require.Equal(t, time.Minute, faults[0].lasts)
	require.Equal(t, outageAfter, s.duration-faults[0].at-faults[0].lasts)
}

func TestNodesOfATopologyFailOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for topology, kinds := range map[string]int{world.KindSentinel: 4, world.KindCluster: 5} {
		seen := make(map[faultKind]bool)
		for seed := range uint64(50) {
			free := time.Duration(0)
			for _, f := range newSchedule(seed, 3*time.Minute, topology) {
				require.NotEqual(t, targetRedis, f.target)
				if f.target == targetNodes {
					require.GreaterOrEqual(t, f.at, free, "seed %d: %s", seed, f)
					free, seen[f.kind] = f.at+f.lasts, true
				}
			}
		}
		require.Len(t, seen, kinds, topology)
	}
}
