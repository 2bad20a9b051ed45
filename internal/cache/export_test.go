package cache

// Queued is how many operations wait in the queue or are in flight.
func (w *Writer) Queued() int64 { return w.queued.Load() }
