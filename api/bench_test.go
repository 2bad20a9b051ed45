package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func BenchmarkDecodeIncrement(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if op, err := api.DecodeIncrement(`{"by": 5}`); op.Amount != 5 || err != nil {
			b.Fatal(op, err)
		}
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	list := make([]string, 1000)
	for i := range list {
		list[i] = `{"op":"increment","key":"page:` + decimal(int64(i)) + `","by":1}`
	}
	body := operations(list...)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if plan, err := api.DecodeBatch(body); len(plan) != len(list) || err != nil {
			b.Fatal(len(plan), err)
		}
	}
}

func BenchmarkEncodeCounter(b *testing.B) {
	c := counter.Counter{Key: "page:home", Value: 42, Version: 7, Exists: true, Known: true}
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text = api.AppendCounter(text[:0], c)
	}
}

// BenchmarkIncrement measures a whole request without the connection and the write path.
func BenchmarkIncrement(b *testing.B) { benchmarkIncrement(b, api.Options{}) }

// BenchmarkIncrementWithKey measures the same with an API key, which is one of three.
func BenchmarkIncrementWithKey(b *testing.B) {
	benchmarkIncrement(b, api.Options{Keys: keyring(b, 0, benchmarkKey+":write", "other:read", "another:read")})
}

// BenchmarkIncrementWithRate measures the same with a key that has a rate.
func BenchmarkIncrementWithRate(b *testing.B) {
	benchmarkIncrement(b, api.Options{Keys: keyring(b, 100_000_000, benchmarkKey+":write")})
}

// benchmarkKey has the length of a generated key.
const benchmarkKey = "0123456789012345678901234567890123456789012345"

func benchmarkIncrement(b *testing.B, options api.Options) {
	b.Helper()
	handler := api.New(always(counter.Result{Counter: counter.Counter{Value: 42, Version: 7, Exists: true, Known: true}}), options)
	body := strings.NewReader("")
	request := httptest.NewRequest(http.MethodPost, "/v1/counters/page:home/increment", io.NopCloser(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+benchmarkKey)
	answer := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(`{"by": 5}`)
		request.ContentLength = 9
		answer.Body.Reset()
		clear(answer.Header())
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK {
			b.Fatal(answer.Code, answer.Body)
		}
	}
}

// BenchmarkEcho measures Echo's own cost of a request with the same path: routing, a context, and an answer without a body.
// `make bench` subtracts its allocations from those of BenchmarkIncrement.
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
