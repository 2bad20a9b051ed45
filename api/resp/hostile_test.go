package resp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
)

// hostile is input that no client library sends.
type hostile struct {
	what  string
	input string
	// replies are the answers. Their last is followed by the end of the connection, unless stays is true.
	replies []string
	stays   bool
}

func hostiles() []hostile {
	protocol := func(text string) []string { return []string{"-ERR Protocol error: " + text} }
	long := strings.Repeat("x", 1025)
	nested := []string{"+OK", "-ERR MULTI calls can not be nested", "-EXECABORT Transaction discarded because of previous errors."}
	const tooBig = "too big request: a command may have 256 KiB"
	return []hostile{
		{"a huge number of arguments", "*1000000000\r\n", protocol("invalid multibulk length"), false},
		{"more arguments than allowed", "*2002\r\n", protocol("invalid multibulk length: a command may have 2001 arguments here"), false},
		{"a number of arguments that overflows", "*99999999999999999999\r\n", protocol("invalid multibulk length"), false},
		{"a number of arguments without an end", "*" + strings.Repeat("1", 100), protocol("invalid multibulk length"), false},
		{"no number of arguments", "*\r\n", protocol("invalid multibulk length"), false},
		{"a negative number of arguments", "*-5\r\n" + encode("PING"), []string{"+PONG"}, true},
		{"no arguments", "*0\r\n" + encode("PING"), []string{"+PONG"}, true},
		{"a header without CR", "*1\n$4\nPING\n", protocol("invalid multibulk length"), false},
		{"letters in a number", "*1a\r\n", protocol("invalid multibulk length"), false},
		{"a plus sign in a number", "*+1\r\n", protocol("invalid multibulk length"), false},
		{"an argument of negative length", "*1\r\n$-2\r\nxx\r\n", protocol("invalid bulk length"), false},
		{"a null argument", "*1\r\n$-1\r\n", protocol("invalid bulk length"), false},
		{"the largest length", "*1\r\n$9223372036854775807\r\nabc\r\n", protocol("invalid bulk length"), false},
		{"an argument of 512 MB", "*2\r\n$4\r\nECHO\r\n$536870912\r\n", protocol("invalid bulk length: an argument may have 1024 bytes"), false},
		{"an argument that is too long", encode("ECHO", long), protocol("invalid bulk length: an argument may have 1024 bytes"), false},
		{"an argument longer than it says", "*1\r\n$4\r\nPINGPONG\r\n", protocol("expected CRLF after the argument"), false},
		{"no dollar sign", "*1\r\n:4\r\nPING\r\n", protocol("expected '$', got ':'"), false},
		{"an array in an array", "*1\r\n*1\r\n$4\r\nPING\r\n", protocol("expected '$', got '*'"), false},
		{"a command that is too large", encode(strings.Fields(strings.Repeat(long[:1024]+" ", 256))...), protocol(tooBig), false},
		{"an endless line", strings.Repeat("x", 5000), protocol("too big inline request"), false},
		{"a line with open quotes", "SET \"a\r\n", protocol("unbalanced quotes in request"), false},
		{"a line with text after quotes", "SET \"a\"b 1\r\n", protocol("unbalanced quotes in request"), false},
		{"a line with zeros", "\x00\x00\x00\r\n" + encode("PING"), []string{"+PONG"}, true},
		{"empty lines", strings.Repeat("\r\n", 1000) + encode("PING"), []string{"+PONG"}, true},
		{"a request over HTTP", "POST / HTTP/1.1\r\nHost: a\r\n\r\nINCR a\r\n", nil, false},
		{"another request over HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", []string{"-ERR wrong number of arguments for 'get' command"}, false},
		{"a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", []string{"-ERR unknown command '???????????'"}, true},
		{"an empty command", encode("") + encode("PING"), []string{"-ERR unknown command ''", "+PONG"}, true},
		{"an empty key", encode("INCR", ""), []string{"-ERR invalid_key: the key is empty: it must have 1 to 255 bytes"}, true},
		{"a key that is too long", encode("INCR", long[:256]), []string{"-ERR invalid_key: the key has 256 bytes: it must have 1 to 255"}, true},
		{"a key with a line break", encode("INCR", "a\r\n+OK"), []string{"-ERR invalid_key: the key has a control character (U+000D) at byte 1"}, true},
		{"a key that is not UTF-8", encode("GET", "\xff\xfe"), []string{"-ERR invalid_key: the key is not valid UTF-8"}, true},
		{"a line break in a command", encode("a\r\n+OK"), []string{"-ERR unknown command 'a??+OK'"}, true},
		{"a line break in an option", encode("HELLO", "3", "x\r\n:1"), []string{"-ERR Syntax error in HELLO option 'x??:1'"}, true},
		{"a line break in a name", encode("CLIENT", "SETNAME", "a\nb"), []string{"-ERR Client names cannot contain spaces, newlines or special characters, and have at most 64 bytes."}, true},
		{"replies instead of commands", "+OK\r\n:1\r\n$-1\r\n", []string{"-ERR unknown command '+OK'", "-ERR unknown command ':1'", "-ERR unknown command '$-1'"}, true},
		{"a transaction in a transaction", encodeAll("MULTI", "MULTI", "EXEC"), nested, true},
	}
}

func TestHostileInputIsAnsweredAndCostsLittleMemory(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	b := serve(t, always(ok), resp.Options{})
	before := heap()
	for _, h := range hostiles() {
		allocatedBefore := allocated()
		w := b.dial(t)
		w.write(h.input)
		if h.stays {
			for _, reply := range h.replies {
				require.Equal(t, reply, w.read(), h.what)
			}
			require.Equal(t, "+PONG", w.one("PING"), h.what)
		} else {
			require.Equal(t, h.replies, w.ended(), h.what)
		}
		took := allocated() - allocatedBefore // with what the test itself allocates
		require.Less(t, took, int64(1<<20), "%s: bytes", h.what)
		t.Logf("%s | %d KiB |", h.row(), took>>10)
	}
	require.Less(t, heap()-before, int64(4<<20), "bytes")
	require.GreaterOrEqual(t, len(hostiles()), 30)
}

// row returns the first columns of the input in the table of docs/proof.md.
func (h *hostile) row() string {
	answers := make([]string, 0, len(h.replies)+1)
	for _, reply := range h.replies {
		answers = append(answers, "`"+reply+"`")
	}
	if !h.stays {
		answers = append(answers, "the connection ends")
	}
	return "| " + h.what + " | " + strings.Join(answers, ", ")
}

func TestHostileInputIsDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/proof.md")
	require.NoError(t, err)
	for _, h := range hostiles() {
		require.Contains(t, string(document), h.row()+" | ")
	}
}

// allocated returns the bytes that the process has allocated since its start.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// heap returns the live bytes of the process.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// 1,000 connections begin a large command and do not end it. They hold the budget for large commands, and little more.
func TestManyUnfinishedCommandsHoldLittleMemory(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	b := serve(t, always(ok), resp.Options{})
	before := heap()
	unfinished := "*2001\r\n" + strings.Repeat("$120\r\n"+strings.Repeat("x", 120)+"\r\n", 200)
	wires := make([]*wire, 1000)
	for i := range wires {
		wires[i] = b.dial(t)
		wires[i].write(unfinished)
	}
	refused := 0
	for _, w := range wires {
		// Those that got a part of the budget are not answered.
		require.NoError(t, w.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if line, err := w.r.ReadString('\n'); err == nil {
			require.Equal(t, "-TRYAGAIN overloaded: too many large commands are being received; the command was not applied\r\n", line)
			refused++
		}
		if refused > 10 {
			break
		}
	}
	require.Positive(t, refused)
	require.Less(t, heap()-before, int64(150<<20), "bytes")
	require.Equal(t, "+PONG", b.dial(t).one("PING"), "small commands need no budget")
}

func TestLargeCommandIsRefusedWithoutABudget(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{})
	giveBack, ok := b.server.TakeBudget()
	require.True(t, ok)
	keys := make([]string, 1500)
	for i := range keys {
		keys[i] = fmt.Sprintf("key:%020d", i)
	}
	large := encode(append([]string{"EXISTS"}, keys...)...)
	w := b.dial(t)
	w.write(large)
	require.Equal(t, []string{"-TRYAGAIN overloaded: too many large commands are being received; the command was not applied"}, w.ended())
	giveBack()
	w = b.dial(t)
	w.write(large)
	require.Equal(t, ":1500", w.read())
}

// The beginning of the next command has arrived with a large one.
func TestBudgetOfALargeCommandIsReturnedWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{})
	keys := make([]string, 1500)
	for i := range keys {
		keys[i] = fmt.Sprintf("key:%020d", i)
	}
	w := b.dial(t)
	w.write(encode(append([]string{"EXISTS"}, keys...)...) + "*2\r\n$4\r\nECHO\r\n$5\r\nhe")
	require.Equal(t, ":1500", w.read())
	b.eventually(t, func() bool {
		giveBack, free := b.server.TakeBudget()
		giveBack()
		return free
	})
	w.write("llo\r\n")
	require.Equal(t, "hello", w.read())
}

// listened is a context that counts who waits for its end.
type listened struct {
	context.Context //nolint:containedctx // it is one

	done    chan struct{}
	waiting atomic.Int64
}

func (l *listened) Done() <-chan struct{} { return l.done }

func (l *listened) AfterFunc(func()) (stop func() bool) {
	l.waiting.Add(1)
	return func() bool {
		l.waiting.Add(-1)
		return true
	}
}

func TestRefusedConnectionLeavesNothing(t *testing.T) {
	t.Parallel()
	server := resp.New(always(ok), resp.Options{})
	resp.WithLimits(resp.Limits{Connections: 1})(server)
	ctx := &listened{Context: t.Context(), done: make(chan struct{})}
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	require.True(t, server.Connect(ctx, there))
	for range 100 {
		require.False(t, server.Connect(ctx, there))
	}
	require.EqualValues(t, 1, ctx.waiting.Load())
}

// A client that does not read gets no more memory than one pipeline of answers, and holds up nobody else.
func TestClientThatDoesNotReadIsDisconnectedAndCostsOnlyItself(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{}, resp.WithLimits(resp.Limits{Write: 200 * time.Millisecond}))
	deaf, other := b.dial(t), b.dial(t)
	pipeline := []byte(strings.Repeat(encode("ECHO", strings.Repeat("x", 1000)), 1000))
	sent, failed := 0, false
	for sent < 1000 && !failed { // 1 GB would fit nowhere
		_, err := deaf.Write(pipeline)
		failed = err != nil
		sent++
		require.Equal(t, "+PONG", other.one("PING"))
	}
	require.True(t, failed, "the server read on")
	require.Less(t, sent, 100)
	require.InEpsilon(t, 1.0, b.metric(t, "afterwrite_resp_slow_connections_total"), 0.01)
}

func TestCommandThatArrivesTooSlowlyEndsTheConnection(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{}, resp.WithLimits(resp.Limits{Command: 300 * time.Millisecond}))
	w := b.dial(t)
	began := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for _, c := range []byte(strings.Repeat("x", 4000)) {
		<-ticker.C
		if _, err := w.Write([]byte{c}); err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, w)
	require.Less(t, time.Since(began), 10*time.Second)
}

func TestIdleConnectionEnds(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{}, resp.WithLimits(resp.Limits{Idle: 100 * time.Millisecond}))
	w := b.dial(t)
	require.Equal(t, "+PONG", w.one("PING"))
	require.Empty(t, w.ended())
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{}, resp.WithLimits(resp.Limits{Connections: 2}))
	first, second := b.dial(t), b.dial(t)
	require.Equal(t, "+PONG", first.one("PING"))
	require.Equal(t, "+PONG", second.one("PING"))
	require.Equal(t, []string{"-ERR max number of clients reached"}, b.dial(t).ended())
	require.Equal(t, "+OK", first.one("QUIT"))
	first.ended()
	b.eventually(t, func() bool {
		w := b.dial(t)
		w.write(encode("PING"))
		reply, err := w.next()
		return err == nil && reply == "+PONG"
	})
}

func TestUnknownCommandsAreCountedByABoundedNumberOfNames(t *testing.T) {
	t.Parallel()
	b := serve(t, always(ok), resp.Options{})
	w := b.dial(t)
	for i := range 2 * resp.MaxUnknown {
		w.one(fmt.Sprintf("NOPE%d", i))
	}
	require.Equal(t, resp.MaxUnknown+1, b.series(t, "afterwrite_resp_unknown_commands_total"))
}

// FuzzConnection finds input that makes the server panic, hang, or answer with something that is no reply.
func FuzzConnection(f *testing.F) {
	for _, h := range hostiles() {
		if len(h.input) < 1000 {
			f.Add([]byte(h.input))
		}
	}
	for _, command := range []string{
		"HELLO 3", "AUTH a b", "SCAN 0 MATCH a* COUNT 5", "INFO", "COMMAND", "CLIENT INFO", "CONFIG GET *", "WAIT 1 1", "AW.WAIT a 1",
		"AW.IDEM x MSET a 1 a 2", "SET a 1 NX GET", "MGET a b", "RESET", "AW.INCRBY a 1 MIN 0 MAX 5",
	} {
		f.Add([]byte(encodeAll("MULTI", "INCR a", "EXEC", command, "INCR a", "INCR a")))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		answers := resp.Answer(always(ok), input)
		w := &wire{t: t, r: newReader(bytes.NewReader(answers))}
		for {
			if _, err := w.next(); err == io.EOF { //nolint:errorlint // bufio returns it as it is
				return
			} else if err != nil {
				t.Fatalf("%q is no reply: %v", answers, err)
			}
		}
	})
}
