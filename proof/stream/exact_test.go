package stream

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drained reads an answer to its end, and returns the number of results and the last whole line. It makes room in window for each
// result.
func drained(t *testing.T, body io.Reader, window <-chan struct{}) (results int, last answer) {
	t.Helper()
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // of a stream that was cut, or io.EOF
			return results, last
		}
		last = answer{}
		require.NoError(t, json.Unmarshal(line, &last))
		if last.Key != "" {
			require.Nil(t, last.Error, string(line))
			results++
			if window != nil {
				<-window
			}
		}
	}
}

func TestStreamIsExactInBoundedMemory(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]string{"each answered": nil, "with summaries": {"Prefer: return=minimal"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			memory := r.watchMemory(t)
			begun := time.Now()

			response, err := r.post(t, "/v1/stream", &source{end: *operations}, headers...)
			require.NoError(t, err)
			defer response.Body.Close()
			require.Equal(t, http.StatusOK, response.StatusCode)
			results, last := drained(t, response.Body, nil)

			t.Logf("%d operations at %.0f/s", *operations, float64(*operations)/time.Since(begun).Seconds())
			memory.requireBounded(t, "one stream", maxGrowth)
			require.Equal(t, answer{Lines: *operations, Applied: *operations, Done: true}, last)
			if headers == nil {
				require.Equal(t, *operations, results)
			}
			r.requireExact(t, *operations)
		})
	}
}

var errCut = errors.New("cut")

// cutAfter reads from r, and fails after so many bytes.
type cutAfter struct {
	io.Reader

	left int64
}

func (c *cutAfter) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errCut
	}
	n, err := c.Reader.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// sendUntilCut sends operations from first to end, and cuts the connection after bytes. At most window operations have no answer; 0: no
// limit. It returns how many were answered, and how many were sent.
func (r *rig) sendUntilCut(t *testing.T, first, end, window int, bytes int64) (answered, sent int) {
	t.Helper()
	from := &source{next: first, end: end}
	if window > 0 {
		from.window = make(chan struct{}, window)
	}
	response, err := r.post(t, "/v1/stream", &cutAfter{Reader: from, left: bytes})
	if err != nil {
		require.ErrorIs(t, err, errCut)
		return 0, from.next - first
	}
	defer response.Body.Close()
	answered, last := drained(t, response.Body, from.window)
	require.False(t, last.Done && last.Error == nil, "the stream was cut")
	return answered, from.next - first
}

// lengthOf returns the length in bytes of the operations from first to end.
func lengthOf(t *testing.T, first, end int) int64 {
	t.Helper()
	n, err := io.Copy(io.Discard, &source{next: first, end: end})
	require.NoError(t, err)
	return n
}

// The client goes on after the last answer that it has read. The server has carried out some operations after it.
func TestStreamThatIsCutAndGoesOnIsExact(t *testing.T) {
	t.Parallel()
	r := setup(t)
	memory := r.watchMemory(t)
	random := rand.New(rand.NewPCG(1, 1))                     //nolint:gosec // the same cuts in each run
	longest := 2 * lengthOf(t, 0, *operations) / int64(*cuts) // so that the cuts are all over the stream
	first, repeated := 0, 0
	for range *cuts {
		at := random.Int64N(min(longest, lengthOf(t, first, *operations)))
		answered, sent := r.sendUntilCut(t, first, *operations, 5000, at)
		first += answered
		repeated += sent - answered
	}
	response, err := r.post(t, "/v1/stream", &source{next: first, end: *operations}, "Prefer: return=minimal")
	require.NoError(t, err)
	defer response.Body.Close()
	_, last := drained(t, response.Body, nil)

	require.Equal(t, answer{Lines: *operations - first, Applied: *operations - first, Done: true}, last)
	t.Logf("%d cuts: %d of %d operations were sent before the last one, and %d of them twice", *cuts, first, *operations, repeated)
	memory.requireBounded(t, "streams that were cut", maxGrowth)
	r.requireExact(t, *operations)
}

// The client sends everything again after each cut.
func TestStreamThatIsCutAndRepeatedIsExact(t *testing.T) {
	t.Parallel()
	r := setup(t)
	n := min(*operations, 100_000)        // about half of them are sent again for each cut
	random := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // the same cuts in each run
	length := lengthOf(t, 0, n)
	for range *cuts {
		r.sendUntilCut(t, 0, n, 0, random.Int64N(length))
	}
	response, err := r.post(t, "/v1/stream", &source{end: n}, "Prefer: return=minimal")
	require.NoError(t, err)
	defer response.Body.Close()
	_, last := drained(t, response.Body, nil)

	require.Equal(t, answer{Lines: n, Applied: n, Done: true}, last)
	r.requireExact(t, n)
}
