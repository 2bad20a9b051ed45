package world

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// topology starts a topology without Postgres.
func topology(t *testing.T, o TopologyOptions) Topology {
	t.Helper()
	w := &World{Dir: t.TempDir(), options: Options{Topology: o}}
	t.Cleanup(func() { require.NoError(t, w.Stop()) })
	require.NoError(t, w.startServers(t.Context()))
	return w.Topology
}

// moves waits until another node is the master of a key.
func moves(t *testing.T, topology Topology, key string, from *Node) {
	t.Helper()
	require.NoError(t, Await(t.Context(), patience, "another master", func(ctx context.Context) (bool, error) {
		master, err := topology.MasterOf(ctx, key)
		return err == nil && master != from, nil
	}))
}

func TestSentinelReplacesAnIsolatedMaster(t *testing.T) {
	t.Parallel()
	s := topology(t, TopologyOptions{Kind: KindSentinel, Partitions: true, MinReplicas: 1})
	master, err := s.MasterOf(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, master.Client.Set(t.Context(), "k", "1", 0).Err())
	require.EqualValues(t, 1, master.Client.Wait(t.Context(), 1, time.Second).Val())

	master.Isolate()
	moves(t, s, "k", master)
	require.NoError(t, master.Client.Get(t.Context(), "k").Err(), "clients still reach it")
	require.NoError(t, Await(t.Context(), patience, "the end of min-replicas-max-lag", func(ctx context.Context) (bool, error) {
		err := master.Client.Set(ctx, "lost", "2", 0).Err()
		return err != nil && strings.Contains(err.Error(), "NOREPLICAS"), nil
	}))

	master, err = s.MasterOf(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "1", master.Client.Get(t.Context(), "k").Val())
}

func TestClusterMovesItsSlotsAndMasters(t *testing.T) {
	t.Parallel()
	c := topology(t, TopologyOptions{Kind: KindCluster, Partitions: true}).(*Cluster)
	key := func(i int) string { return fmt.Sprintf("{k}%d", i) }
	from, err := c.MasterOf(t.Context(), key(0))
	require.NoError(t, err)
	for i := range 2 * moveBatch {
		require.NoError(t, from.Client.Set(t.Context(), key(i), i, 0).Err())
	}

	require.NoError(t, c.Switch(t.Context(), from))
	moves(t, c, key(0), from)
	require.NoError(t, AwaitHealthy(t.Context(), c, time.Minute))
	from, err = c.MasterOf(t.Context(), key(0))
	require.NoError(t, err)
	masters, err := c.Masters(t.Context())
	require.NoError(t, err)
	require.Len(t, masters, clusterMasters)
	to := masters[0]
	if to == from {
		to = masters[1]
	}
	slot, err := c.slot(t.Context(), key(0))
	require.NoError(t, err)
	fromID, err := from.id(t.Context())
	require.NoError(t, err)
	toID, err := to.id(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.move(t.Context(), slot, from, to, fromID, toID))
	moves(t, c, key(0), from)
	for i := range 2 * moveBatch {
		require.Equal(t, strconv.Itoa(i), to.Client.Get(t.Context(), key(i)).Val())
	}
	require.NoError(t, AwaitHealthy(t.Context(), c, time.Minute))

	to.Isolate()
	moves(t, c, key(0), to)
	require.NoError(t, Heal(t.Context(), c, time.Minute))
}
