//go:build unix && !linux

package load

import "time"

// sleep blocks for d.
func sleep(d time.Duration) { time.Sleep(d) }
