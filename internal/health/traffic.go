package health

import "slices"

// trafficWindow is the number of samples that Traffic covers: a minute, since rejections are rare.
const trafficWindow = 60

// Traffic has the requests and rejections of all running apis, and what all running workers wrote to mapped tables, per second, over the
// last minute.
type Traffic struct {
	Requests   map[string]float64 // by the name of their API key; "" without a known key
	Other      float64            // requests with keys that are not in Requests
	Rejections map[string]float64 // requests and operations of batches that were answered with a problem, by its code
	Mapped     map[string]float64 // columns written, by the name of their mapping
}

func newTraffic() Traffic {
	return Traffic{Requests: make(map[string]float64), Rejections: make(map[string]float64), Mapped: make(map[string]float64)}
}

// add adds other's rates, multiplied by factor.
func (t *Traffic) add(other Traffic, factor float64) {
	for name, n := range other.Requests {
		t.Requests[name] += n * factor
	}
	t.Other += other.Other * factor
	for code, n := range other.Rejections {
		t.Rejections[code] += n * factor
	}
	for name, n := range other.Mapped {
		t.Mapped[name] += n * factor
	}
}

// trafficBetween returns the rates of one process between two of its heartbeats.
func trafficBetween(before, now Counts, seconds float64) Traffic {
	t := newTraffic()
	byKey, other := now.Requests.since(before.Requests)
	for name, n := range byKey {
		t.Requests[name] = float64(n) / seconds
	}
	t.Other = float64(other) / seconds
	for code, n := range now.Rejected {
		t.Rejections[code] = float64(grown(before.Rejected[code], n)) / seconds
	}
	for name, counts := range now.Mappings {
		t.Mapped[name] = float64(grown(before.Mappings[name].Rows, counts.Rows)) / seconds
	}
	return t
}

// traffics are the Traffic of the last samples.
type traffics []Traffic

// add adds a sample, and returns the mean of the window.
func (all *traffics) add(t Traffic) Traffic {
	*all = append(*all, t)
	*all = slices.Delete(*all, 0, max(0, len(*all)-trafficWindow))
	mean := newTraffic()
	for _, one := range *all {
		mean.add(one, 1/float64(len(*all)))
	}
	return mean
}
