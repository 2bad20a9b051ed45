package command

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

func TestVerifySaysWhatDiffersAndRepairsIt(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	require.Regexp(t, `(?m)^equal +0 +0 +`, b.succeeds(t, "verify"))
	b.hydrate(t, counter.Row{Key: "a", Value: 7, Version: 3})

	p := start(t, b.env, "verify")
	require.Equal(t, exitFailure, p.end(t))
	require.Regexp(t, `(?m)^a +missing +7 \(version 3\) +none +false$`, p.text.String())
	require.Contains(t, p.errs.String(), "1 differences are left")

	var report operate.Report
	require.NoError(t, json.Unmarshal([]byte(b.succeeds(t, "verify", "--repair", "--json")), &report))
	require.True(t, report.Complete)
	require.EqualValues(t, 1, report.Repaired[operate.ClassMissing])
	require.Regexp(t, `(?m)^dirty +1 +0 +`, b.succeeds(t, "verify", "--rate", "0"))

	env := []string{"REDIS_URL=" + environMap(b.env)["REDIS_URL"], noPostgres}
	p = start(t, env, "verify", "--json")
	require.Equal(t, exitFailure, p.end(t))
	require.Contains(t, p.text.String(), `"complete": false`)
	require.NotContains(t, p.out.String(), "hunter2")
}

// hydrate makes a clean entry of a row that Postgres need not have.
func (b *deadBundle) hydrate(t *testing.T, row counter.Row) {
	t.Helper()
	for range 2 { // the first call on a shard opens its first epoch, so it comes with an old token
		snapshot, err := b.Cache.Read(t.Context(), b.Cache.Shard(row.Key), []counter.Key{row.Key})
		require.NoError(t, err)
		_, err = b.Cache.Hydrate(t.Context(), []cache.Base{{Key: row.Key, Row: row, Found: true, Token: snapshot.Token}})
		require.NoError(t, err)
	}
}

func TestVerifyArgumentsThatMakeNoSenseAreAUsageError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"verify", "--rate=-1"}, {"verify", "--show=-1"}, {"verify", "a"}} {
		require.Equal(t, exitUsage, runHere(t.Context(), args...).status, "%v", args)
	}
	require.Contains(t, runHere(t.Context(), "verify", "--help").stdout, "afterwrite verify --repair")
}
