// Package frame is what the peers of the benchmark share with each other and with afterwrite's api: the same Echo, served in the
// same way, with a request ID, recovery from panics and a histogram of the durations.
//
// A peer may be tuned and is never handicapped. So bodies are read and answers written without reflection: c.Bind and c.JSON
// would do the same and take longer.
package frame
