package health

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestHeartbeatOfAnAPINamesTheKeysOfItsRequests(t *testing.T) {
	t.Parallel()
	b := setup(t, localtest.Redis(t))
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "afterwrite_api_requests_total", Help: "Requests."}, []string{"key"})
	b.options.Counted.(*prometheus.Registry).MustRegister(requests)
	requests.WithLabelValues("").Add(2)
	requests.WithLabelValues("web").Add(3)
	b.run(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		heartbeats := b.read(t)
		return len(heartbeats) == 1, fmt.Sprint(heartbeats)
	})
	require.Equal(t, &Requests{ByKey: map[string]int64{"": 2, "web": 3}}, b.read(t)[0].Counts.Requests)

	requests.WithLabelValues("batch").Add(1)
	localtest.Eventually(t, patience, func() (bool, string) {
		named := b.read(t)[0].Counts.Requests.ByKey
		return named["batch"] == 1, fmt.Sprint(named)
	})
}

func TestHeartbeatOfAnotherProcessHasNoRequests(t *testing.T) {
	t.Parallel()
	counts, err := count(prometheus.NewRegistry())
	require.NoError(t, err)
	require.Nil(t, new(busiest).choose(counts.Requests))
}

func TestHeartbeatNamesTheBusiestKeysAndSumsUpTheOthers(t *testing.T) {
	t.Parallel()
	all := make(map[string]int64)
	for i := range maxNamed + 10 {
		all[fmt.Sprintf("key%02d", i)] = int64(1000 - i)
	}
	var b busiest
	chosen := b.choose(&Requests{ByKey: all})
	require.Len(t, chosen.ByKey, maxNamed)
	require.Contains(t, chosen.ByKey, "key19")
	require.NotContains(t, chosen.ByKey, "key20")
	require.EqualValues(t, 980+979+978+977+976+975+974+973+972+971, chosen.Other)

	// A key that was idle for long, and is the busiest now, is named although others have more since the start.
	for range 300 {
		b.choose(&Requests{ByKey: all})
	}
	now := make(map[string]int64)
	for name, n := range all {
		now[name] = n + 1
	}
	now["key29"] += 50
	chosen = b.choose(&Requests{ByKey: now})
	require.Len(t, chosen.ByKey, maxNamed)
	require.EqualValues(t, 971+51, chosen.ByKey["key29"])
	require.NotContains(t, chosen.ByKey, "key19")
}

func TestHeartbeatWithManyLongNamesIsBounded(t *testing.T) {
	t.Parallel()
	all := make(map[string]int64)
	for i := range 10_000 {
		all[fmt.Sprintf("%063d", i)] = 1 << 62 / 10_000
	}
	text, err := json.Marshal(new(busiest).choose(&Requests{ByKey: all}))
	require.NoError(t, err)
	require.Less(t, len(text), 2000)
}

func TestHeartbeatsWithoutRequestsAndWithUnknownFieldsAreRead(t *testing.T) {
	t.Parallel()
	old, ok := decodeHeartbeat("a", `1000 {"role":"api","counts":{"writes":5}}`)
	require.True(t, ok)
	require.Nil(t, old.Counts.Requests)
	require.EqualValues(t, 5, old.Counts.Writes)
	later, ok := decodeHeartbeat("a", `1000 {"role":"api","counts":{"writes":5,"requests":{"by_key":{"web":1},"new":[]},"new":{}},"new":1}`)
	require.True(t, ok)
	require.EqualValues(t, 1, later.Counts.Requests.ByKey["web"])
}

type byKey = map[string]int64

// served is beat with requests by API key.
func served(at, other int64, keys byKey) Heartbeat {
	p := beat("a", at, 0, 0)
	p.Counts.Requests = &Requests{ByKey: keys, Other: other}
	return p
}

func TestRequestsByKeyAreRates(t *testing.T) {
	t.Parallel()
	r := newRates()
	require.Empty(t, add(r, served(1000, 0, byKey{"web": 1000})).Traffic.Requests, "nobody knows when")
	s := add(r, served(3000, 0, byKey{"web": 1020, "new": 4}))
	require.Equal(t, map[string]float64{"web": 10, "new": 2}, s.Traffic.Requests)
	require.Zero(t, s.Traffic.Other)
}

func TestKeyThatIsNamedOrDroppedMakesNoJump(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, served(1000, 5000, byKey{"web": 1000, "old": 900}))
	s := add(r, served(2000, 1905, byKey{"web": 1010, "big": 4020})) // "old" has become one of the others, "big" was one
	require.Equal(t, map[string]float64{"web": 10}, s.Traffic.Requests)
	require.InDelta(t, 25, s.Traffic.Other, 0, "of old, big and the others")
	s = add(r, served(3000, 1905, byKey{"web": 1010, "big": 4050}))
	require.InDelta(t, 15, s.Traffic.Requests["big"], 0.001, "30/s in one of two samples")
}

func TestKeyThatIsRemovedMakesNoNegativeRate(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, served(1000, 10, byKey{"web": 1000, "gone": 900}))
	s := add(r, served(2000, 10, byKey{"web": 1010}))
	require.Equal(t, map[string]float64{"web": 10}, s.Traffic.Requests)
	require.Zero(t, s.Traffic.Other)
}

func TestRequestsOfAnOlderVersionAreNotCounted(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, beat("a", 1000, 0, 0))
	s := add(r, served(2000, 0, byKey{"web": 1010}))
	require.Empty(t, s.Traffic.Requests)
	require.Zero(t, s.Traffic.Other)
}

func TestTrafficOfRunningApisAddsUpOverTheLastMinute(t *testing.T) {
	t.Parallel()
	r := newRates()
	at := func(second int, rejected int64) []Heartbeat {
		both := []Heartbeat{served(int64(second)*1000, 0, byKey{"web": 10 * int64(second)}), served(int64(second)*1000, 0, byKey{"web": 20 * int64(second)})}
		both[1].ID = "b"
		for i := range both {
			both[i].Counts.Rejected = map[string]int64{"backpressure": rejected}
		}
		return both
	}
	add(r, at(1, 0)...)
	s := add(r, at(2, 3)...)
	require.InDelta(t, 30, s.Traffic.Requests["web"], 0.001)
	require.InDelta(t, 6, s.Traffic.Rejections["backpressure"], 0.001)
	for second := 3; second <= trafficWindow+1; second++ {
		s = add(r, at(second, 3)...)
	}
	require.InDelta(t, 30, s.Traffic.Requests["web"], 0.001)
	require.InDelta(t, 6.0/trafficWindow, s.Traffic.Rejections["backpressure"], 0.001)
	s = add(r, at(trafficWindow+2, 3)...)
	require.Zero(t, s.Traffic.Rejections["backpressure"], "it was more than a minute ago")
	require.Len(t, r.traffics, trafficWindow)

	gone := at(trafficWindow+2, 3)
	gone[0].Age, gone[1].Age = time.Minute, time.Minute
	for range trafficWindow {
		s = add(r, gone...)
	}
	require.Zero(t, s.Traffic.Requests["web"], strconv.Itoa(len(r.traffics)))
}
