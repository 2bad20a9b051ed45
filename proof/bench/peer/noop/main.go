// Command noop binds and answers, and counts nothing: the most that Echo can do here.
package main

import (
	"context"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

func main() {
	frame.Exit(frame.Serve(increment, func(e *echo.Echo) { e.GET("/v1/counters/:key", get) }))
}

func increment(_ context.Context, key string, by int64) (frame.Counter, error) {
	return frame.Counter{Key: key, Value: by, Version: 1}, nil
}

func get(c echo.Context) error {
	return frame.Answer(c, frame.Counter{Key: c.Param("key"), Value: 1, Version: 1, Synced: true})
}
