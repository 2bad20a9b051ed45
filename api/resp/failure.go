package resp

import (
	"errors"
	"maps"
	"slices"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Errors of this package. Those that Redis has, have its text, because clients compare it.
const (
	textSyntax     = "ERR syntax error"
	textInteger    = "ERR value is not an integer or out of range"
	textOverflow   = "ERR increment or decrement would overflow"
	textNoAuth     = "NOAUTH Authentication required."
	textWrongPass  = "WRONGPASS invalid username-password pair or user is disabled."
	textExpiry     = "ERR invalid expire: counters do not expire, and nothing was applied"
	textTimeout    = "ERR timeout is not an integer or out of range"
	textNoCounters = "ERR the counters cannot be listed"
)

const tryAgain = "TRYAGAIN"

// prefixes begin the error of a code. Clients switch on them. A code that is not here has ERR, and was not applied.
var prefixes = map[counter.Code]string{
	// Not applied, and worth another attempt, which some clients make by themselves; but see text.
	counter.CodeOverloaded:          tryAgain,
	counter.CodeCacheUnavailable:    tryAgain,
	counter.CodeDatabaseUnavailable: tryAgain,
	auth.CodeRateLimited:            tryAgain,
	// Not applied, as by a Redis at maxmemory.
	counter.CodeBackpressure: "OOM",
	counter.CodeCacheFull:    "OOM",

	counter.CodeOutOfBounds:    "OUTOFBOUNDS", // not applied
	counter.CodeNotDurable:     "NOTDURABLE",  // applied
	counter.CodeOutcomeUnknown: "UNKNOWN",     // the connection ends
	auth.CodeForbidden:         "NOPERM",
	auth.CodeUnauthorized:      "NOAUTH",
	counter.CodeInternal:       "ERR",
}

// texts are the whole errors of codes whose detail would not help.
var texts = map[counter.Code]string{
	counter.CodeOverflow: textOverflow,
	counter.CodeInternal: "ERR internal: a bug in the server, which its log describes; a write may have been applied",
	counter.CodeOutcomeUnknown: "UNKNOWN outcome_unknown: the write may or may not have been applied, and the connection ends. " +
		"Repeat it only if it had AW.IDEM",
}

// codes are those that operations over this protocol can end with, for the metrics.
func codes() []counter.Code {
	return slices.AppendSeq([]counter.Code{
		counter.CodeInvalidKey, counter.CodeOverflow, counter.CodeInvalidIdempotencyKey, counter.CodeIdempotencyKeyReused,
		counter.CodeUnsupportedDurability, counter.CodeVersionMismatch,
	}, maps.Keys(prefixes))
}

// known returns err if it is a counter.Error, and an internal error with err as its cause otherwise.
func known(err error) *counter.Error {
	if e, ok := errors.AsType[*counter.Error](err); ok {
		return e
	}
	return &counter.Error{Code: counter.CodeInternal, Err: err}
}

// text returns the error for the client. It has the code of the HTTP API, and never the cause. go-redis sends a whole pipeline again if its
// first answer is TRYAGAIN, also the commands that were applied. So only a command that has arrived alone is answered with it.
func (c *connection) text(e *counter.Error) string {
	if whole, found := texts[e.Code]; found {
		return whole
	}
	prefix, found := prefixes[e.Code]
	if !found || (prefix == tryAgain && !c.alone()) {
		prefix = "ERR"
	}
	return prefix + " " + string(e.Code) + ": " + e.Detail
}

// alone reports whether the present command is the only one that has arrived.
func (c *connection) alone() bool {
	return c.seen == 1 && c.parser.start == c.parser.end && !c.parser.filled
}

// appendFailure appends an error. After an outcome that is not known it ends the connection: clients repeat what got an error more readily
// than what lost its connection, and answers to later commands would be of no use.
func (c *connection) appendFailure(out []byte, err error) []byte {
	e := known(err)
	if e.Code == counter.CodeOutcomeUnknown {
		c.closing = true
	}
	return appendError(out, c.text(e))
}

// fail answers the present command with an error, after the answers to the commands before it. A transaction is then not carried out.
func (c *connection) fail(text string) {
	if c.multi != nil {
		c.multi.broken = true
	}
	c.flush()
	if !c.closing {
		c.out = appendError(c.out, text)
	}
}

// failWith is fail for an error for the client, which it counts.
func (c *connection) failWith(err error) {
	e := known(err)
	c.server.metrics.Reject(e.Code, 1)
	c.server.logFailure(c.ctx, c, e, 1)
	c.fail(c.text(e))
}
