package dashboard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/operate"
)

func TestADiscardOfManyEndsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	p := &deadPage{register: newTestRegister(t)}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/dead/discard", http.NoBody)
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	said, err := p.drop(over, r, discardData{Letters: make([]letterView, 3)})
	require.Equal(t, "dropped 0, left 3", said)
	require.Equal(t, "it took too long, so it was not done, or not all of it; it may be repeated", operate.Explain(err).Detail)
	noted, err := p.actions.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, noted)
}
