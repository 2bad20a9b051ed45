package dashboard_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestTwoViewersSeeTheSameSample(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.dirty(t, "07", 5, time.Now())
	b.run(t)
	url := b.stream(t) + "/live?page=overview&every=1"
	one, two := watch(t, url), watch(t, url)

	seen := make(map[int64]event)
	for range 4 {
		e := one.next(t)
		seen[e.Now] = *e
	}
	same := 0
	for range 4 {
		e := two.next(t)
		if other, ok := seen[e.Now]; ok {
			require.Equal(t, other.Parts, e.Parts)
			same++
		}
	}
	require.GreaterOrEqual(t, same, 2)
	for _, e := range seen {
		require.Contains(t, e.Parts["state"], "Workers are not running; 5 keys are waiting.")
		require.NotEmpty(t, e.Parts["at"])
		require.NotEmpty(t, e.Points)
		require.EqualValues(t, 5, e.Points[len(e.Points)-1].D)
	}
}

// A stream lasts 10 minutes. The browser should open the next one without a long pause.
func TestStreamSetsTheReconnectionTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	v := watch(t, b.stream(t)+"/live?page=overview&every=1")
	require.True(t, v.lines.Scan())
	require.Equal(t, "retry: 1000", v.lines.Text())
	require.NotNil(t, v.next(t))
}

func TestViewerGetsTheHistoryOnceAndThenNewSamples(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.run(t)
	v := watch(t, b.stream(t)+"/live?page=overview&every=1")
	first := v.next(t)
	require.NotEmpty(t, first.Points)
	last := first.Points[len(first.Points)-1].T
	for range 2 {
		e := v.next(t)
		require.Len(t, e.Points, 1)
		require.Greater(t, e.Points[0].T, last)
		last = e.Points[0].T
	}
	stop()
	require.Nil(t, v.next(t), "the end of the process ends the stream")

	// Another process loads the history that this one stored in Redis.
	again := setup(t)
	copyHistory(t, b.redis, again.redis)
	again.run(t)
	e := watch(t, again.stream(t)+"/live?page=overview&every=15").next(t)
	require.GreaterOrEqual(t, len(e.Points), 4)
	require.Equal(t, first.Points[0].T, e.Points[0].T)
}

func TestViewerGetsNewSamplesAfterTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	ahead := time.Now().Add(time.Hour).UnixMilli()
	v := watch(t, fmt.Sprintf("%s/live?page=overview&every=1&since=%d", b.stream(t), ahead))
	first := v.next(t)
	require.NotEmpty(t, first.Points)
	require.Equal(t, first.Now, first.Points[len(first.Points)-1].T)
	require.Len(t, v.next(t).Points, 1, "only the new sample is sent")
}

func copyHistory(t *testing.T, from, to redis.UniversalClient) {
	t.Helper()
	for _, line := range from.LRange(t.Context(), "aw:history", 0, -1).Val() {
		require.NoError(t, to.RPush(t.Context(), "aw:history", line).Err())
	}
}

func TestSlowViewerDelaysNoOtherViewer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	url := b.stream(t)
	slow, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer slow.Close()
	require.NoError(t, slow.(*net.TCPConn).SetReadBuffer(1))
	for range 50 { // pipelined requests fill its socket buffers
		_, err = fmt.Fprintf(slow, "GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
	}
	_, err = fmt.Fprintf(slow, "GET /live?page=overview&every=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)

	v := watch(t, url+"/live?page=shards&every=1")
	v.next(t)
	began := time.Now()
	for range 2 {
		require.NotNil(t, v.next(t))
	}
	require.Less(t, time.Since(began), 6*time.Second)
}

func TestViewersBeyondTheLimitAreRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t)
	url := b.stream(t) + "/live?page=overview&every=15"
	first := watch(t, url)
	for range 255 {
		watch(t, url)
	}

	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.Equal(t, "15", response.Header.Get("Retry-After"))
	require.Contains(t, string(text), "all 256 live streams are in use")

	require.NoError(t, first.body.Close())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
		require.NoError(t, err)
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK, response.Status
	})
}

func TestUnknownStreamsAreRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, query := range []string{"", "?page=overview", "?page=overview&every=0", "?page=overview&every=2", "?page=x&every=1"} {
		require.Equal(t, http.StatusBadRequest, b.get(t, "/live"+query).Code, query)
	}
}

// counting counts a client's commands and its samples. Each sample has one pipeline that begins with a ZCARD.
type counting struct{ sent, samples atomic.Int64 }

func (*counting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.sent.Add(1)
		return next(ctx, cmd)
	}
}

func (c *counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.sent.Add(int64(len(cmds)))
		if len(cmds) > 1 && cmds[0].Name() == "time" && cmds[1].Name() == "mget" {
			c.samples.Add(1)
		}
		return next(ctx, cmds)
	}
}

func TestManyViewersCostRedisNoMoreThanOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	commands := new(counting)
	b.redis.AddHook(commands)
	b.run(t)
	url := b.stream(t) + "/live?page=overview&every=1"
	first := watch(t, url)

	// Commands are counted per sample, not per second, since the machine may be busy.
	perSample := func() float64 {
		sent, samples := commands.sent.Load(), commands.samples.Load()
		for commands.samples.Load() < samples+5 { // INFO is one command in five samples
			first.next(t)
		}
		return float64(commands.sent.Load()-sent) / float64(commands.samples.Load()-samples)
	}
	one := perSample()
	var received atomic.Int64
	for range 199 {
		v := watch(t, url)
		go func() { // until the test ends the stream
			for v.lines.Scan() {
				if strings.HasPrefix(v.lines.Text(), "data: ") {
					received.Add(1)
				}
			}
		}()
	}
	many := perSample()

	t.Logf("commands to Redis for each sample: %.1f with 1 viewer, %.1f with 200, which received %d events", one, many, received.Load())
	require.InDelta(t, one, many, 2)
	require.Greater(t, received.Load(), int64(400))
}
