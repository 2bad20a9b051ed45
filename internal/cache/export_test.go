package cache

// Queued returns the number of operations in the queue and in flight.
func (w *Writer) Queued() int64 { return w.queued.Load() }
