package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// narrow serves with room for few batches.
func narrow(t *testing.T, service api.Counters, small, large int, grace time.Duration) (b *bundle, inside func() api.Inside) {
	t.Helper()
	handler, inside := api.NewNarrow(service, small, large, grace)
	return &bundle{addr: start(t, handler)}, inside
}

// tiny is a batch that would be applied, large one that needs one of the few places.
var (
	tiny  = operations(`{"op":"delete","key":"a"}`)
	large = operations(`{"op":"delete","key":"a"}`) + strings.Repeat(" ", 20<<10)
)

// slowClient is in the middle of sending a batch.
type slowClient struct {
	net.Conn

	answers *bufio.Reader
	request string
	rest    string // of the body
}

// slow begins to send a batch and returns when the server reads its body, of which it has sent nothing yet.
func (b *bundle) slow(t *testing.T, body string) *slowClient {
	t.Helper()
	return b.slowTo(t, batch, body)
}

// slowTo is slow for another path.
func (b *bundle) slowTo(t *testing.T, target, body string, headers ...string) *slowClient {
	t.Helper()
	headers = append(headers, "Expect: 100-continue")
	c := &slowClient{Conn: b.dial(t), rest: body, request: requestText(http.MethodPost, target, body, headers...)}
	t.Cleanup(func() { _ = c.Close() })
	c.answers = bufio.NewReader(c.Conn)
	_, err := io.WriteString(c, strings.TrimSuffix(c.request, body))
	require.NoError(t, err)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		line, err := c.answers.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, want, line, "it has begun to read the body")
	}
	return c
}

// send sends n more bytes of the body; an error is no surprise once the server has answered.
func (c *slowClient) send(n int) error {
	_, err := io.WriteString(c, c.rest[:n])
	c.rest = c.rest[n:]
	return err
}

// drip sends a byte every few milliseconds until stop is closed or the server has had enough.
func (c *slowClient) drip(stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(c.rest) > 1 {
		select {
		case <-stop:
			return
		case <-tick.C:
			if c.send(1) != nil {
				return
			}
		}
	}
}

func (c *slowClient) answer(t *testing.T) *answer {
	t.Helper()
	return readAnswer(t, c.answers, c.request)
}

// TestSlowBatchesDoNotKeepFastOnesWaiting has 200 clients drip, of which half have sent enough to need one of the few places.
func TestSlowBatchesDoNotKeepFastOnesWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	var all []*slowClient
	defer func() {
		close(stop)
		for _, c := range all {
			_ = c.Close()
		}
		dripping.Wait()
	}()
	var expelled atomic.Int64
	for i := range 200 {
		c := b.slow(t, large)
		if i%2 == 0 {
			require.NoError(t, c.send(len(large)-3000))
			dripping.Go(func() {
				if a, err := http.ReadResponse(c.answers, nil); err == nil {
					text, _ := io.ReadAll(a.Body)
					_ = a.Body.Close()
					if strings.Contains(string(text), "too slowly") {
						expelled.Add(1)
					}
				}
			})
		}
		dripping.Go(func() { c.drip(stop) })
		all = append(all, c)
	}
	sent := time.Now()

	var longest time.Duration
	fast := func(body string) *answer {
		begun := time.Now()
		a := b.send(t, http.MethodPost, batch, body)
		longest = max(longest, time.Since(begun))
		return a
	}
	require.Equal(t, http.StatusOK, fast(tiny).StatusCode, "at once: nothing that drips holds a slot that it needs")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { // later every slow batch has used up its grace
		a := fast(large)
		return a.StatusCode == http.StatusOK && expelled.Load() > 0 && time.Since(sent) > time.Second, a.text
	})
	for i := range 20 {
		for _, body := range []string{tiny, large} {
			a := fast(body)
			require.Equal(t, http.StatusOK, a.StatusCode, "%d: %s after %s", i, a.text, longest)
		}
	}
	require.Less(t, longest, 5*time.Second, "on a busy machine")
	t.Logf("the longest of the fast batches took %s; %d slow ones made room", longest, expelled.Load())
}

func TestSlowestBatchMakesRoom(t *testing.T) {
	t.Parallel()
	b, inside := narrow(t, always(counter.Result{}), 2, 1, time.Nanosecond)
	first, second := b.slow(t, tiny), b.slow(t, tiny)

	require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, batch, tiny).StatusCode)

	a := first.answer(t)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too slowly")
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	_, err := first.answers.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection is of no more use")
	require.NoError(t, second.send(len(tiny)))
	require.Equal(t, http.StatusOK, second.answer(t).StatusCode, "one was enough")
	require.Zero(t, inside())
}

func TestLargeBatchesMakeRoomForLargeOnes(t *testing.T) {
	t.Parallel()
	b, _ := narrow(t, always(counter.Result{}), 10, 1, time.Nanosecond)
	waiting, stalled := b.slow(t, tiny), b.slow(t, large)
	require.NoError(t, stalled.send(len(large)-1))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = stalled.answers.Peek(1)
	}()

	localtest.Eventually(t, patience, func() (bool, string) {
		fast := b.send(t, http.MethodPost, batch, large).StatusCode // 503: the stalled one has just come to need its place
		select {
		case <-answered:
			return fast == http.StatusOK, http.StatusText(fast)
		default:
			return false, "it was not told to make room"
		}
	})

	require.Contains(t, stalled.answer(t).problem(t).Detail, "too slowly")
	require.NoError(t, waiting.send(len(tiny)))
	require.Equal(t, http.StatusOK, waiting.answer(t).StatusCode, "it was in nobody's way")
}

func TestTooManyBatchesAtOnceAreRefused(t *testing.T) {
	t.Parallel()
	b, inside := narrow(t, always(counter.Result{}), 2, 1, time.Hour) // nobody is slow
	first := b.slow(t, large)
	require.NoError(t, first.send(len(large)-1))
	localtest.Eventually(t, patience, func() (bool, string) {
		return inside().Large == 1, "the first has not the only place for a large one"
	})
	refused := b.slow(t, large)
	require.NoError(t, refused.send(len(large)))
	a := refused.answer(t)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "large batches")
	require.Equal(t, "1", a.Header.Get("Retry-After"))

	second, third := b.slow(t, tiny), b.slow(t, tiny)
	a = b.send(t, http.MethodPost, batch, tiny)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too many batches")
	require.Equal(t, http.StatusNoContent, b.send(t, http.MethodDelete, "/v1/counters/a", "").StatusCode, "others go on")
	require.NoError(t, first.send(1))
	require.Equal(t, http.StatusOK, first.answer(t).StatusCode)
	for _, c := range []*slowClient{second, third} {
		require.NoError(t, c.send(len(tiny)))
		require.Equal(t, http.StatusOK, c.answer(t).StatusCode)
	}
	require.Zero(t, inside())
}

// TestBatchesThatMakeRoomAreNotApplied has many clients fight for few places: what is answered 200 is applied, the rest not.
func TestBatchesThatMakeRoomAreNotApplied(t *testing.T) {
	t.Parallel()
	var applied, accepted, refused atomic.Int64
	b, inside := narrow(t, counters(func(ctx context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		require.NoError(t, ctx.Err(), "a request that goes on has a connection that works")
		applied.Add(1)
		return make([]counter.Result, len(ops))
	}), 3, 2, time.Microsecond)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			body := []string{tiny, large}[i%2]
			for range 30 {
				read, write := io.Pipe()
				go func() {
					_, _ = io.WriteString(write, body[:len(body)/2])
					_, _ = io.WriteString(write, body[len(body)/2:])
					_ = write.Close()
				}()
				r, err := client.Post("http://"+b.addr+batch, "application/json", read)
				_ = read.Close()
				if err != nil {
					refused.Add(1) // the server closed the connection while the body was on its way
					continue
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode == http.StatusOK {
					accepted.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	clients.Wait()

	require.Equal(t, accepted.Load(), applied.Load())
	require.Positive(t, accepted.Load())
	require.Positive(t, refused.Load(), "else this has shown nothing")
	require.Zero(t, inside())
	t.Logf("%d accepted, %d refused", accepted.Load(), refused.Load())
}
