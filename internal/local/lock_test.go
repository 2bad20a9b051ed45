package local_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
)

func TestLockHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	unlock, err := local.Lock(dir)
	require.NoError(t, err)

	_, err = local.Lock(dir)
	require.ErrorIs(t, err, local.ErrLocked)
	require.ErrorContains(t, err, strconv.Itoa(os.Getpid()))
	requireOneLine(t, err)

	require.NoError(t, unlock())
	unlock, err = local.Lock(dir)
	require.NoError(t, err)
	require.NoError(t, unlock())
}

func TestLockRefusesASymbolicLink(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	require.NoError(t, os.Mkdir(dir, 0o700))
	victim := dir + "/victim"
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	require.NoError(t, os.Symlink(victim, dir+"/lock"))

	_, err := local.Lock(dir)
	require.ErrorIs(t, err, local.ErrNotWritable)
	text, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
}
