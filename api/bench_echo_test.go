package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

// BenchmarkEcho is what Echo itself takes for a request of the same path: routing, a context, and an answer without a body. `make
// bench` counts BenchmarkIncrement's allocations from here.
func BenchmarkEcho(b *testing.B) {
	e := echo.New()
	e.POST("/v1/counters/:key/increment", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	request := httptest.NewRequest(http.MethodPost, "/v1/counters/page:home/increment", http.NoBody)
	answer := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		clear(answer.Header())
		e.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK {
			b.Fatal(answer.Code)
		}
	}
}
