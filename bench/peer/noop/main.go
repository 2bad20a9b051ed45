// Command noop binds and answers, and counts nothing: the most that Echo can do here.
package main

import (
	"context"

	"github.com/afterwrite/afterwrite/bench/peer/frame"
)

func main() {
	frame.Exit(frame.Serve(func(_ context.Context, key string, by int64) (frame.Counter, error) {
		return frame.Counter{Key: key, Value: by, Version: 1}, nil
	}))
}
