//go:build failover

package e2e_test

import (
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The primary is frozen instead, so that its connections stay open, and thaws after the promotion as a primary of the old timeline that
// refuses to write. A flush in progress waits for its bound, 12 s.
func TestAPromotionWhileThePrimaryIsFrozenFailsNoWrite(t *testing.T) {
	r := startReplicated(t, true)
	var pids []int
	found, err := r.DB.QueryContext(t.Context(), "SELECT pid FROM pg_stat_activity UNION SELECT "+strconv.Itoa(r.world.Postgres.Pid()))
	require.NoError(t, err)
	defer found.Close()
	for found.Next() {
		var pid int
		require.NoError(t, found.Scan(&pid))
		pids = append(pids, pid)
	}
	require.NoError(t, found.Err())
	signal := func(s syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, s) // a backend may have ended
		}
	}
	t.Cleanup(func() { signal(syscall.SIGCONT) }) // a frozen server cannot stop
	r.failOver(t, func() { signal(syscall.SIGSTOP) }, func() {
		require.NoError(t, syscall.Kill(r.world.Postgres.Pid(), syscall.SIGHUP)) // it reads its settings when it thaws
		signal(syscall.SIGCONT)
	})
}
