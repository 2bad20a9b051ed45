package resp

import (
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// Bounds on connections. A connection that sends nothing holds about 10 KiB, and one in use up to 50 KiB; large commands have a budget
// that all connections share. So 4,096 connections hold at most 200 MiB and the budget; and up to 260 KiB each while their clients do not
// read a full answer of SCAN, for writeTimeout at most.
const (
	maxConnections = 4096
	// idleTimeout ends a connection without commands. It is longer than the 30 minutes after which the pools of common clients drop idle
	// connections, so that the client closes first: a command that crosses the server's close would have an unknown outcome.
	idleTimeout = time.Hour
	// loginTimeout ends a connection that has not sent a valid AUTH, if keys are configured.
	loginTimeout = 10 * time.Second
	// commandTimeout bounds the time from the first byte of a command to its last, so that nobody holds the budget for long.
	commandTimeout = 10 * time.Second
	// writeTimeout bounds the time for which a client does not read its answers. Nothing more of it is read or carried out meanwhile.
	writeTimeout = 30 * time.Second
	// lingerTimeout is how long the last answers wait to be read after the server has ended its side of a connection. Closing a socket with
	// unread input resets it, and a reset may overtake answers.
	lingerTimeout = time.Second
)

// Bounds on the input.
const (
	// maxPipeline bounds the commands that are carried out before their answers are sent. redis-benchmark -P 1000 still is one pipeline.
	maxPipeline = 1000
	// maxOperations bounds the operations of one request to Counters. It is one atomic call to Redis.
	maxOperations = cache.MaxWrites
	// maxArgumentBytes bounds one argument. The longest useful ones are a key with 255 bytes and an API key.
	maxArgumentBytes = 1024
	// maxArguments bounds a command: MSET with 1,000 keys, and its name.
	maxArguments = 2001
	// maxCommandBytes bounds a command, so that 256 large ones fit into the budget: 1,000 keys of 250 bytes.
	maxCommandBytes = 256 << 10
	// maxInlineBytes bounds a command that is a line of text, which only people send.
	maxInlineBytes = 4 << 10
	// maxGuestArguments is maxArguments before AUTH: HELLO 3 AUTH name key SETNAME name has 7.
	maxGuestArguments = 10
	// smallBuffer and usualBuffer are the sizes of the input of a new connection and of one with pipelines. Larger ones are for one
	// command, and take their size from the budget.
	smallBuffer = 1 << 10
	usualBuffer = 16 << 10
	// largeBudgetBytes bounds the memory of all larger inputs together.
	largeBudgetBytes = 64 << 20
	// sendBytes is the size of the output at which it is written, although more answers follow.
	sendBytes = 32 << 10
)

// Bounds on what a connection asks for.
const (
	maxListed     = 1000             // counters of one SCAN
	defaultListed = 100              // if it has no COUNT
	maxCursors    = 4096             // of unfinished SCANs
	maxWait       = 30 * time.Second // of WAIT, WAITAOF and AW.WAIT; as over HTTP
	maxNameBytes  = 64               // of CLIENT SETNAME
	maxUnknown    = 32               // names of unknown commands that are counted one by one
)
