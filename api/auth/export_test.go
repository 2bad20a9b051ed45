package auth

import "time"

// TakeAt is Key.Take at a time.
func TakeAt(k *Key, now time.Time, n int) (Quota, error) { return k.take(now, n) }
