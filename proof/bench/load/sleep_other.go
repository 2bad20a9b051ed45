//go:build unix && !linux

package load

import "time"

// sleep waits for d.
func sleep(d time.Duration) { time.Sleep(d) }
