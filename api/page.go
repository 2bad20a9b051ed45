package api

import (
	"compress/gzip"
	"embed"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui/v5/static"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The page /docs shows the OpenAPI document with Swagger UI, whose files are a part of the program: the browser loads nothing from
// elsewhere. swgui holds the files compressed.

//go:embed page
var pageFiles embed.FS

// docsPolicy lets the page load only what this server serves. Swagger UI sets styles of elements, and has images in its stylesheet.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsPage serves the page.
func docsPage(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderContentSecurityPolicy, docsPolicy)
	text, err := pageFiles.ReadFile("page/docs.html")
	if err != nil {
		return err //nolint:wrapcheck // a bug, which is logged as internal
	}
	return c.HTMLBlob(http.StatusOK, text)
}

// docsFile serves a file of the page.
func docsFile(c echo.Context) error {
	name := c.Param("file")
	h := c.Response().Header()
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderCacheControl, "public, max-age=3600") // the files change only with the program
	kind := mime.TypeByExtension(path.Ext(name))
	if text, err := pageFiles.ReadFile("page/" + name); err == nil && name != "docs.html" {
		return c.Blob(http.StatusOK, kind, text)
	}
	if text, err := static.FS.ReadFile(name); err == nil && strings.HasSuffix(name, ".png") {
		return c.Blob(http.StatusOK, kind, text)
	}
	packed, err := static.FS.Open(name + ".gz")
	if err != nil {
		h.Del(echo.HeaderCacheControl)
		return &counter.Error{Code: counter.CodeNotFound, Detail: "the page /docs has no such file"}
	}
	return unpack(c, kind, packed)
}

// unpack sends a compressed file, decompressed if the client does not accept gzip.
func unpack(c echo.Context, kind string, packed fs.File) error {
	defer func() { _ = packed.Close() }()
	h := c.Response().Header()
	h.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	if strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
		h.Set(echo.HeaderContentEncoding, "gzip")
		return c.Stream(http.StatusOK, kind, packed)
	}
	content, err := gzip.NewReader(packed)
	if err != nil {
		return err //nolint:wrapcheck // a bug, which is logged as internal
	}
	return c.Stream(http.StatusOK, kind, io.Reader(content))
}
