package dashboard

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/health"
)

// requestsOf returns the parts of /requests for the frame.
func requestsOf(t *testing.T, f *frame) map[string]string {
	t.Helper()
	p := &requestsPage{
		page: newPage(&shared{}, requestsPath, "Requests", "requests.html"),
		explain: func(code string) (string, string) {
			if code == "backpressure" {
				return "Too many", "Not applied."
			}
			return "", ""
		},
	}
	parts := make(map[string]string)
	for _, name := range p.parts() {
		text, err := p.part(name, p.data(f))
		require.NoError(t, err)
		parts[name] = text
	}
	return parts
}

// served returns a frame with these requests of one api.
func served(keys map[string]float64, other float64) *frame {
	f := &frame{Snapshot: well()}
	f.Processes[0].Counts.Requests = &health.Requests{}
	f.Traffic = health.Traffic{Requests: keys, Other: other}
	return f
}

func TestRequestsHaveTheirShare(t *testing.T) {
	t.Parallel()
	parts := requestsOf(t, served(map[string]float64{"web": 75, "": 20, "idle": 0, "rare": 0.01}, 5))
	require.Regexp(t, `(?s)web</th>\s*<td class="num">75/s</td><td class="num">75 %</td>.*`+
		`no key, or an unknown one</td>\s*<td class="num">20/s</td><td class="num">20 %</td>.*`+
		`rare</th>\s*<td class="num">&lt;0.1/s</td><td class="num">&lt;0.1 %</td>.*`+
		`all other keys</td>\s*<td class="num">5/s</td><td class="num">5.0 %</td>`, parts["keys"])
	require.NotContains(t, parts["keys"], "idle")
	require.Contains(t, parts["summary"], "100 requests and 0 rejections a second")
	require.NotContains(t, parts["summary"], "older version")
}

func TestRequestsAreBoundedToTheBusiestKeys(t *testing.T) {
	t.Parallel()
	keys := make(map[string]float64)
	for i := range 200 {
		keys[fmt.Sprintf("key%03d", i)] = float64(200 - i)
	}
	parts := requestsOf(t, served(keys, 0))
	require.Equal(t, maxKeyRows, strings.Count(parts["keys"], `<th scope="row"`))
	require.Contains(t, parts["keys"], "key049")
	require.NotContains(t, parts["keys"], "key050")
	require.Contains(t, parts["keys"], "11,325/s", "all others: the sum of 1 to 150")
}

func TestRejectionsAreExplained(t *testing.T) {
	t.Parallel()
	f := served(nil, 0)
	require.Contains(t, requestsOf(t, f)["rejections"], "None since the running apis started.")
	require.Contains(t, requestsOf(t, f)["keys"], "No requests in the last minute.")

	f.Processes[0].Counts.Rejected = map[string]int64{"backpressure": 4, "not_found": 1_000_000, "<new>": 1}
	f.Traffic.Rejections = map[string]float64{"backpressure": 2, "not_found": 0.5}
	parts := requestsOf(t, f)
	require.Regexp(t, `(?s)backpressure</td>.*2/s</td>.*>4</td>.*<strong>Too many.</strong> Not applied.`+
		`.*not_found</td>.*0.5/s</td>.*1,000,000</td>.*does not know this code.*&lt;new&gt;</td>`, parts["rejections"])
	require.Contains(t, parts["summary"], "0 requests and 2.5 rejections a second")

	f.Processes[0].Age = time.Minute
	require.NotContains(t, requestsOf(t, f)["rejections"], "backpressure", "its counts begin anew with its next start")
}

func TestRequestsSayWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	f := served(nil, 0)
	f.Processes[0].Counts.Requests = nil
	require.Contains(t, requestsOf(t, f)["summary"], "1 api is of an older version")

	f = served(nil, 0)
	f.Processes = f.Processes[1:]
	require.Contains(t, requestsOf(t, f)["summary"], "No api is running.")
	f.Unread = true
	require.Contains(t, requestsOf(t, f)["summary"], "Not known.")
	f.Failed = time.Second
	require.Contains(t, requestsOf(t, f)["summary"], "Redis cannot be reached.")
	require.Contains(t, requestsOf(t, &frame{Snapshot: health.Snapshot{Starting: true}})["summary"], "on its way")
}
