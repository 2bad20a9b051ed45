package browser_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// The api's page /docs renders the whole document, loads nothing from elsewhere, and can send a request.
func TestTheDocumentOfTheAPIIsShown(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := open(t)
	b.visit(t, "http://"+s.api.address+"/docs")
	b.waitForText(t, ".info .title", "afterwrite")
	localtest.Eventually(t, patience, func() (bool, string) {
		all := b.text(t, "#document")
		return strings.Contains(all, "Add to a counter") && strings.Contains(all, "/v1/batch"), all
	})
	require.Zero(t, evaluate[int](t, b, `document.querySelectorAll(".errors-wrapper").length`), "the document has errors")

	evaluate[bool](t, b, `document.querySelector("#operations-operations-healthz .opblock-summary-control").click() ?? true`)
	b.waitForText(t, "#operations-operations-healthz .try-out__btn", "Try it out")
	evaluate[bool](t, b, `document.querySelector("#operations-operations-healthz .try-out__btn").click() ?? true`)
	b.waitForText(t, "#operations-operations-healthz .execute", "Execute")
	evaluate[bool](t, b, `document.querySelector("#operations-operations-healthz .execute").click() ?? true`)
	b.waitForText(t, "#operations-operations-healthz .live-responses-table", `"ok"`)

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		require.True(t, strings.HasPrefix(url, "http://"+s.api.address+"/") || strings.HasPrefix(url, "data:"), url)
	}
	require.Empty(t, b.problems)
}
