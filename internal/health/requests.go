package health

import (
	"cmp"
	"maps"
	"slices"
)

const (
	// maxNamed bounds the API keys that a heartbeat names, with up to 63 bytes each.
	maxNamed = 20

	// recentDecay is the weight of older requests after a heartbeat: they count half after 34 s.
	recentDecay = 0.98
)

// Requests are the requests to one api by API key, since it started.
type Requests struct {
	ByKey map[string]int64 `json:"by_key"` // by the key's name; "" without a known key
	Other int64            `json:"other"`  // with all other keys
}

func (r *Requests) total() int64 {
	total := r.Other
	for _, n := range r.ByKey {
		total += n
	}
	return total
}

// since returns the growth since an earlier heartbeat of the same process. A key that was one of the others then is still counted among
// them.
func (r *Requests) since(before *Requests) (byKey map[string]int64, other int64) {
	if r == nil || before == nil {
		return nil, 0
	}
	byKey = make(map[string]int64, len(r.ByKey))
	other = r.total() - before.total()
	for name, n := range r.ByKey {
		was, named := before.ByKey[name]
		if named || before.Other == 0 { // else it has just begun
			byKey[name] = grown(was, n)
			other -= byKey[name]
		}
	}
	return byKey, max(0, other) // a total decreases if a key is removed from the settings
}

// busiest chooses the API keys that a heartbeat names: those with the most requests lately.
type busiest struct {
	last   map[string]int64
	recent map[string]float64 // requests; older ones count less
}

// choose keeps the busiest keys of an api, and sums up the others. Without requests (nil) it returns nil.
func (b *busiest) choose(all *Requests) *Requests {
	if all == nil {
		return nil
	}
	recent := make(map[string]float64, len(all.ByKey))
	for name, n := range all.ByKey {
		recent[name] = recentDecay*b.recent[name] + float64(grown(b.last[name], n))
	}
	b.last, b.recent = all.ByKey, recent
	names := slices.SortedFunc(maps.Keys(all.ByKey), func(x, y string) int {
		return cmp.Or(cmp.Compare(recent[y], recent[x]), cmp.Compare(all.ByKey[y], all.ByKey[x]), cmp.Compare(x, y))
	})
	chosen := &Requests{ByKey: make(map[string]int64, min(len(names), maxNamed))}
	for i, name := range names {
		if i < maxNamed {
			chosen.ByKey[name] = all.ByKey[name]
		} else {
			chosen.Other += all.ByKey[name]
		}
	}
	return chosen
}
