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
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// serveSlots starts a server with these numbers of slots. held returns the slots in use.
func serveSlots(t *testing.T, service api.Counters, small, large int, grace time.Duration) (b *bundle, held func() api.Held) {
	t.Helper()
	handler, held := api.NewWithSlots(service, api.Options{}, small, large, grace)
	return &bundle{addr: start(t, handler)}, held
}

// tiny is a batch that needs a small slot only. large is the same batch, padded so that it needs a large slot.
var (
	tiny  = operations(`{"op":"delete","key":"a"}`)
	large = tiny + strings.Repeat(" ", 20<<10)
)

// slowClient has sent a part of a request.
type slowClient struct {
	net.Conn

	answers *bufio.Reader
	request string
	rest    string // of the body
}

// startBatch sends the headers of a batch and returns when the server waits for the body.
func (b *bundle) startBatch(t *testing.T, body string) *slowClient {
	t.Helper()
	return b.startRequest(t, batch, body)
}

// startRequest is startBatch for any path.
func (b *bundle) startRequest(t *testing.T, target, body string, headers ...string) *slowClient {
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
		require.Equal(t, want, line, "the server waits for the body")
	}
	return c
}

// send sends n more bytes of the body. It may fail once the server has answered.
func (c *slowClient) send(n int) error {
	_, err := io.WriteString(c, c.rest[:n])
	c.rest = c.rest[n:]
	return err
}

// drip sends a byte every few milliseconds until stop is closed or the server closes the connection.
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

// 200 clients send one byte at a time. Half of them have sent enough to need a large slot.
func TestSlowBatchesDoNotDelayFastOnes(t *testing.T) {
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
		c := b.startBatch(t, large)
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
	require.Equal(t, http.StatusOK, fast(tiny).StatusCode, "there are free small slots")
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { // until the slow batches have used up their grace
		a := fast(large)
		return a.StatusCode == http.StatusOK && expelled.Load() > 0 && time.Since(sent) > time.Second, a.text
	})
	for i := range 20 {
		for _, body := range []string{tiny, large} {
			a := fast(body)
			require.Equal(t, http.StatusOK, a.StatusCode, "%d: %s after %s", i, a.text, longest)
		}
	}
	require.Less(t, longest, 5*time.Second) // much more than needed, for a busy machine
	t.Logf("the slowest of the fast batches took %s; %d slow batches were expelled", longest, expelled.Load())
}

func TestSlowestBatchIsExpelled(t *testing.T) {
	t.Parallel()
	b, held := serveSlots(t, always(counter.Result{}), 2, 1, time.Nanosecond)
	first, second := b.startBatch(t, tiny), b.startBatch(t, tiny)

	require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, batch, tiny).StatusCode)

	a := first.answer(t)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too slowly")
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	_, err := first.answers.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the server closes the connection")
	require.NoError(t, second.send(len(tiny)))
	require.Equal(t, http.StatusOK, second.answer(t).StatusCode, "only one batch is expelled")
	require.Zero(t, held())
}

func TestLargeBatchExpelsOnlyLargeBatches(t *testing.T) {
	t.Parallel()
	b, _ := serveSlots(t, always(counter.Result{}), 10, 1, time.Nanosecond)
	waiting, stalled := b.startBatch(t, tiny), b.startBatch(t, large)
	require.NoError(t, stalled.send(len(large)-1))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = stalled.answers.Peek(1)
	}()

	localtest.Eventually(t, patience, func() (bool, string) {
		fast := b.send(t, http.MethodPost, batch, large).StatusCode // 503 while no large batch has used up its grace
		select {
		case <-answered:
			return fast == http.StatusOK, http.StatusText(fast)
		default:
			return false, "the stalled batch was not expelled"
		}
	})

	require.Contains(t, stalled.answer(t).problem(t).Detail, "too slowly")
	require.NoError(t, waiting.send(len(tiny)))
	require.Equal(t, http.StatusOK, waiting.answer(t).StatusCode, "small batches are not expelled for a large slot")
}

func TestTooManyBatchesAtOnceAreRejected(t *testing.T) {
	t.Parallel()
	b, held := serveSlots(t, always(counter.Result{}), 2, 1, time.Hour) // no batch is slow
	first := b.startBatch(t, large)
	require.NoError(t, first.send(len(large)-1))
	localtest.Eventually(t, patience, func() (bool, string) {
		return held().Large == 1, "the first batch does not hold the large slot yet"
	})
	rejected := b.startBatch(t, large)
	require.NoError(t, rejected.send(len(large)))
	a := rejected.answer(t)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too many large batches")
	require.Equal(t, "1", a.Header.Get("Retry-After"))

	second, third := b.startBatch(t, tiny), b.startBatch(t, tiny)
	a = b.send(t, http.MethodPost, batch, tiny)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too many batches")
	require.Equal(t, http.StatusNoContent, b.send(t, http.MethodDelete, "/v1/counters/a", "").StatusCode, "other requests need no slot")
	require.NoError(t, first.send(1))
	require.Equal(t, http.StatusOK, first.answer(t).StatusCode)
	for _, c := range []*slowClient{second, third} {
		require.NoError(t, c.send(len(tiny)))
		require.Equal(t, http.StatusOK, c.answer(t).StatusCode)
	}
	require.Zero(t, held())
}

func TestFlushBodiesNeedAdmission(t *testing.T) {
	t.Parallel()
	flush := flusher(func(_ context.Context, keys []counter.Key, _ time.Duration) (operate.Left, error) {
		return operate.Left{Dirty: int64(len(keys))}, nil
	})
	handler, held := api.NewWithSlots(always(counter.Result{}), api.Options{Flusher: flush}, 1, 1, time.Hour) // no body is slow
	b := &bundle{addr: start(t, handler)}
	list := strings.Repeat(`"`+longestKey+`",`, operate.MaxFlushKeys)
	body := `{"keys":[` + list[:len(list)-1] + `]}`
	require.Greater(t, len(body), api.MaxBodyBytes)
	first := b.startRequest(t, "/v1/flush", body)

	a := b.send(t, http.MethodPost, "/v1/flush", `{"keys":["a"]}`)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too many batches, reads or flushes")
	require.Equal(t, http.StatusServiceUnavailable, b.send(t, http.MethodPost, batch, tiny).StatusCode, "they share the slots")
	require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, "/v1/flush", "").StatusCode, "no body needs no slot")

	require.NoError(t, first.send(len(body)))
	a = first.answer(t)
	require.Equal(t, http.StatusAccepted, a.StatusCode)
	require.JSONEq(t, `{"dirty":10000,"retrying":0,"dead":0}`, a.text)
	require.Zero(t, held())
}

// Many clients compete for few slots. Exactly the batches that get 200 are applied.
func TestExpelledBatchesAreNotApplied(t *testing.T) {
	t.Parallel()
	var applied, accepted, rejected atomic.Int64
	b, held := serveSlots(t, counters(func(ctx context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		require.NoError(t, ctx.Err(), "an admitted request must not be canceled")
		applied.Add(1)
		return make([]counter.Result, len(ops))
	}), 3, 2, time.Microsecond)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			body := []string{tiny, large}[i%2]
			for n := 0; n < 30 || (rejected.Load() == 0 && n < 300); n++ { // chance decides which are rejected
				read, write := io.Pipe()
				go func() {
					_, _ = io.WriteString(write, body[:len(body)/2])
					_, _ = io.WriteString(write, body[len(body)/2:])
					_ = write.Close()
				}()
				r, err := client.Post("http://"+b.addr+batch, "application/json", read)
				_ = read.Close()
				if err != nil {
					rejected.Add(1) // the server closed the connection before it had the whole body
					continue
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode == http.StatusOK {
					accepted.Add(1)
				} else {
					rejected.Add(1)
				}
			}
		})
	}
	clients.Wait()

	require.Equal(t, accepted.Load(), applied.Load())
	require.Positive(t, accepted.Load())
	require.Positive(t, rejected.Load(), "without a rejection the test shows nothing")
	require.Zero(t, held())
	t.Logf("%d accepted, %d rejected", accepted.Load(), rejected.Load())
}
