// Package flush is how somebody asks for a flush now, and learns what is left: the API's POST /v1/flush and the command
// `afterwrite flush`. The workers do the work; here it is only asked for, and looked at until it is done or the time is over.
package flush
