package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Option changes one call. Each option says which methods take it. Other methods fail with CodeInvalidQuery and send nothing, since
// an ignored Min or IfMatch would be a wrong count.
type Option struct {
	name  string
	kinds kind
	apply func(o *callOptions)
}

// kind is a set of methods.
type kind int

const (
	kindGet kind = 1 << iota
	kindIncrement
	kindSet
	kindDelete
	kindBatch
	kindFlush
	kindList

	kindWrite = kindIncrement | kindSet | kindDelete | kindBatch
)

// callOptions are the options of one call.
type callOptions struct {
	min, max   *int64
	ifMatch    string
	key        string // Idempotency-Key
	once       bool
	minimal    bool
	waits      bool
	wait       time.Duration
	version    int64
	durability string
	limit      int
	cursor     string
}

// options applies the options of a call of the kind.
func options(k kind, list []Option) (callOptions, error) {
	var o callOptions
	for _, option := range list {
		if option.kinds&k == 0 {
			return o, invalid(CodeInvalidQuery, "the option %s does not belong to this method; nothing was sent", option.name)
		}
		option.apply(&o)
	}
	if o.once && o.key != "" {
		return o, invalid(CodeInvalidQuery, "use Once or IdempotencyKey, not both; nothing was sent")
	}
	return o, nil
}

// Min makes an increment fail with CodeOutOfBounds if the new value would be less than bound. For Increment.
func Min(bound int64) Option {
	return Option{"Min", kindIncrement, func(o *callOptions) { o.min = &bound }}
}

// Max makes an increment fail with CodeOutOfBounds if the new value would be more than bound. For Increment.
func Max(bound int64) Option {
	return Option{"Max", kindIncrement, func(o *callOptions) { o.max = &bound }}
}

// IfMatch makes a write fail with CodeVersionMismatch unless the counter has the version. For Increment, Set and Delete.
func IfMatch(version int64) Option {
	return Option{"IfMatch", kindWrite &^ kindBatch, func(o *callOptions) { o.ifMatch = `"` + strconv.FormatInt(version, 10) + `"` }}
}

// IfExists makes a write fail with CodeVersionMismatch if there is no counter. For Increment, Set and Delete.
func IfExists() Option {
	return Option{"IfExists", kindWrite &^ kindBatch, func(o *callOptions) { o.ifMatch = "*" }}
}

// IdempotencyKey names the write: it is applied once, however often it is sent within the server's AFTERWRITE_IDEMPOTENCY_TTL (24 h).
// Use it when a write is repeated by more than the Client: by a user, a queue, a process that starts again. key is 1 to 128 bytes of
// printable ASCII. Without this option the Client uses a random one. For Increment, Set, Delete and Batch.
func IdempotencyKey(key string) Option {
	return Option{"IdempotencyKey", kindWrite, func(o *callOptions) { o.key = key }}
}

// Once sends the write without an Idempotency-Key, which costs Redis less memory. The Client then repeats it only after an answer, or
// a failure to connect, that means that it was not applied. For Increment, Set, Delete and Batch.
func Once() Option {
	return Option{"Once", kindWrite, func(o *callOptions) { o.once = true }}
}

// Minimal asks for no value: the server then does not need to read a cold counter from Postgres. Counter.Known is false. For
// Increment, Set and Batch. Delete has no value anyway.
func Minimal() Option {
	return Option{"Minimal", kindWrite, func(o *callOptions) { o.minimal = true }}
}

// Wait waits until Postgres has the write or, for Get, the counter as it is. After d the call succeeds with Counter.Synced false.
// d is 1 ms to 30 s; all but Get round it up to whole seconds. A List first flushes what was written before it, for up to d: see
// Page.Complete. For all methods but Read.
func Wait(d time.Duration) Option {
	return Option{"Wait", kindGet | kindWrite | kindFlush | kindList, func(o *callOptions) { o.waits, o.wait = true, d }}
}

// Version makes a Get with Wait wait for this version instead of the newest. For Get.
func Version(version int64) Option {
	return Option{"Version", kindGet, func(o *callOptions) { o.version = version }}
}

// Limit bounds the counters on a page: 1 to 1,000, by default 100. For List.
func Limit(n int) Option {
	return Option{"Limit", kindList, func(o *callOptions) { o.limit = n }}
}

// From continues a list after the page that had this Next. The prefix must be the same. For List.
func From(next string) Option {
	return Option{"From", kindList, func(o *callOptions) { o.cursor = next }}
}

// The levels for Durability.
const (
	InMemory   = "memory"   // the memory of Redis has it, whatever the server's AFTERWRITE_DURABILITY is
	OnReplicas = "replica"  // the server's AFTERWRITE_WAIT_REPLICAS replicas of Redis have the write
	OnDisk     = "disk"     // the disk of Redis has it
	InPostgres = "database" // Postgres has it
)

// Durability makes the write succeed only if it is on the level within Wait (default 2 s, for InPostgres 5 s). Without it, the level is
// the server's AFTERWRITE_DURABILITY. With InMemory, Wait is for Postgres, as without a level. Otherwise the call
// fails with CodeNotDurable, although the write is applied. The Client does not repeat it then. For Increment, Set, Delete and Batch.
func Durability(level string) Option {
	return Option{"Durability", kindWrite, func(o *callOptions) { o.durability = level }}
}

// prefer returns the header Prefer, or "".
func (o *callOptions) prefer() string {
	var preferences []string
	if o.minimal {
		preferences = append(preferences, "return=minimal")
	}
	if o.waits {
		seconds := (o.wait + time.Second - 1) / time.Second
		preferences = append(preferences, fmt.Sprintf("wait=%d", max(0, seconds)))
	}
	if o.durability != "" {
		preferences = append(preferences, "durability="+o.durability)
	}
	return strings.Join(preferences, ", ")
}
