package api_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	require.NoError(t, err)
	return document
}

func TestOpenAPIDocumentIsValid(t *testing.T) {
	t.Parallel()
	require.NoError(t, loadDocument(t).Validate(t.Context(), openapi3.EnableExamplesValidation()))
}

func TestOpenAPIDocumentIsServed(t *testing.T) {
	t.Parallel()
	a := serve(t, always(counter.Result{}), api.Options{}).send(t, http.MethodGet, "/v1/openapi.yaml", "")

	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Equal(t, "application/yaml", a.Header.Get("Content-Type"))
	text, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	require.Equal(t, string(text), a.text)
}

// The document leaves out HEAD, which every GET route has.
func TestOpenAPIDocumentHasExactlyTheServedRoutes(t *testing.T) {
	t.Parallel()
	var served, documented []string
	for _, r := range api.Routes() {
		if r.Method != http.MethodHead {
			served = append(served, r.Method+" "+strings.NewReplacer(":key", "{key}", ":code", "{code}", ":file", "{file}").Replace(r.Path))
		}
	}
	for path, item := range loadDocument(t).Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	require.ElementsMatch(t, served, documented)
}

func TestOpenAPIDocumentHasEveryCode(t *testing.T) {
	t.Parallel()
	var served []any
	for code := range api.Statuses() {
		served = append(served, string(code))
	}
	require.ElementsMatch(t, served, loadDocument(t).Components.Schemas["Problem"].Value.Properties["code"].Value.Enum)
}

// The routes of operators answer a bug with 500, as all others do.
func TestBugsOnOperatorsRoutesAreInternalErrors(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{
		Keys: tokenOnly(), Operator: new(operate.Service), // without its parts each request panics
		Flusher: flusher(func(context.Context, []counter.Key, time.Duration) (operate.Left, error) {
			panic("a bug")
		}),
	})
	for request, body := range map[string]string{
		"GET /v1/admin/dead": "", "GET /v1/admin/dead/a": "", "DELETE /v1/admin/dead/a": "", "POST /v1/admin/dead/redrive": `{"all":true}`,
		"POST /v1/flush": "",
	} {
		method, target, _ := strings.Cut(request, " ")
		a := b.send(t, method, target, body, "Authorization: Bearer "+token)
		require.Equal(t, http.StatusInternalServerError, a.StatusCode, request)
		require.Equal(t, "internal", a.problem(t).Code)
		require.NotContains(t, a.text, "a bug")
	}
}

// Each route gets each server error that it can return, and increment and batch get overflow. send checks the answers against the document.
func TestOpenAPIDocumentHasEveryStatus(t *testing.T) {
	t.Parallel()
	for code, status := range api.Statuses() {
		if status < 500 && code != counter.CodeOverflow {
			continue // TestBadRequestsChangeNothing has these
		}
		b := serve(t, failing(code, 0), api.Options{})
		requests := map[string]string{"POST " + increment: "", "POST " + batch: operations(good)}
		if code != counter.CodeOverflow {
			requests["GET "+set], requests["PUT "+set], requests["DELETE "+set] = "", `{"value":1}`, ""
		}
		for line, body := range requests {
			method, target, _ := strings.Cut(line, " ")
			require.Equal(t, status, b.send(t, method, target, body).StatusCode)
		}
	}
}
