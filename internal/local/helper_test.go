package local_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireOneLine: the user gets one line that says what to do.
func requireOneLine(t *testing.T, err error) {
	t.Helper()
	require.NotContains(t, err.Error(), "\n")
}

// contextDone is a context that ends at once, for a Stop that has no patience.
func contextDone(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Millisecond)
}

func openAndPing(t *testing.T, url string) error {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	return db.PingContext(bounded(t))
}
