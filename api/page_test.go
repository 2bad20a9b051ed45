package api_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestDocumentPage(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})
	a := b.send(t, http.MethodGet, "/docs", "")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Contains(t, a.Header.Get("Content-Security-Policy"), "default-src 'none'")
	require.NotContains(t, a.text, "http:")
	require.NotContains(t, a.text, "https:")

	for name, kind := range map[string]string{
		"swagger-ui-bundle.js": "text/javascript", "start.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png",
	} {
		require.Contains(t, a.text, "docs/"+name)
		plain := b.send(t, http.MethodGet, "/docs/"+name, "")
		require.Equal(t, http.StatusOK, plain.StatusCode, name)
		require.True(t, strings.HasPrefix(plain.Header.Get("Content-Type"), kind), plain.Header.Get("Content-Type"))
		require.Greater(t, len(plain.text), 100)
		packed := b.send(t, http.MethodGet, "/docs/"+name, "", "Accept-Encoding: gzip")
		require.Equal(t, http.StatusOK, packed.StatusCode)
		if packed.Header.Get("Content-Encoding") != "gzip" {
			require.Equal(t, plain.text, packed.text)
			continue
		}
		unpacked, err := gzip.NewReader(bytes.NewReader([]byte(packed.text)))
		require.NoError(t, err)
		text, err := io.ReadAll(unpacked)
		require.NoError(t, err)
		require.Equal(t, plain.text, string(text))
	}
	for _, name := range []string{"none.js", "docs.html", "..%2Fdocs.html", "embed.go", "swagger-ui.css.gz"} {
		require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/docs/"+name, "").StatusCode, name)
	}
}
