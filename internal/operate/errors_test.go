package operate_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// Neither the code nor the sentence has the address of a server.
func TestExplainGivesEachErrorACodeAndASentence(t *testing.T) {
	t.Parallel()
	refused := errors.New("dial tcp 10.0.0.1:5432: connection refused")
	for want, err := range map[counter.Code]error{
		counter.CodeNotFound:            &operate.Error{Reason: operate.NotDead, Key: "a", Detail: "it is not a dead letter"},
		counter.CodeConflict:            &operate.Error{Reason: operate.Changed, Key: "a", Detail: "it was written meanwhile"},
		counter.CodeDatabaseUnavailable: &operate.Error{Reason: operate.StillDead, Key: "a", Detail: "it is still dead", Err: refused},
		counter.CodeCacheUnavailable:    fmt.Errorf("list: %w", refused),
	} {
		explained := operate.Explain(err)
		require.Equal(t, want, explained.Code)
		require.NotEmpty(t, explained.Detail)
		require.NotContains(t, explained.Detail, "10.0.0.1")
	}
	conflict := operate.Explain(&operate.Error{Reason: operate.StillDead, Key: "a", Detail: "postgres has 7"})
	require.Equal(t, counter.CodeConflict, conflict.Code)
	require.Contains(t, operate.Explain(context.DeadlineExceeded).Detail, "took too long")

	unknown := operate.DeadLetter{Key: "a", PostgresErr: refused}.Discardable()
	require.Equal(t, operate.PostgresAway, operate.ReasonOf(unknown))
	require.Equal(t, counter.CodeDatabaseUnavailable, operate.Explain(unknown).Code)
	require.ErrorIs(t, unknown, refused, "the log needs the cause")
	require.ErrorContains(t, unknown, `"a"`)
	require.NoError(t, operate.DeadLetter{Key: "a"}.Discardable())
}
