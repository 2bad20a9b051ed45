package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxListed bounds the names in a sentence.
const maxListed = 3

// BrokenMappings returns the mappings whose tables running workers cannot write, each with the error of one worker, by name.
func (s Snapshot) BrokenMappings() map[string]string {
	broken := make(map[string]string)
	for _, p := range s.Processes {
		if p.Alive() {
			maps.Copy(broken, p.BrokenMappings)
		}
	}
	return broken
}

// WorkerMappings returns the sums of the counts of all running workers, by the name of the mapping.
func (s Snapshot) WorkerMappings() map[string]MappingCounts {
	sums := make(map[string]MappingCounts)
	for _, p := range s.Processes {
		if p.Role != RoleWorker || !p.Alive() {
			continue
		}
		for name, n := range p.Counts.Mappings {
			sum := sums[name]
			sums[name] = MappingCounts{sum.Rows + n.Rows, sum.Missing + n.Missing, sum.Refused + n.Refused}
		}
	}
	return sums
}

// usesMappings are the roles that read AFTERWRITE_MAPPINGS.
var usesMappings = []string{RoleAPI, RoleWorker, RoleDashboard}

// otherMappings returns the running processes whose mappings differ from those of most workers, or of most processes if no worker runs. It
// also returns the digest of these.
func (s Snapshot) otherMappings() (others []Heartbeat, digest string) {
	var running []Heartbeat
	votes := make(map[string]int) // by digest; a worker outvotes all other processes
	for _, p := range s.Processes {
		if !p.Alive() || !slices.Contains(usesMappings, p.Role) {
			continue
		}
		running = append(running, p)
		votes[p.Settings.Mappings]++
		if p.Role == RoleWorker {
			votes[p.Settings.Mappings] += maxProcesses
		}
	}
	if len(votes) < 2 {
		return nil, ""
	}
	digest = slices.MaxFunc(slices.Collect(maps.Keys(votes)), func(x, y string) int {
		return cmp.Or(cmp.Compare(votes[x], votes[y]), cmp.Compare(x, y)) // a tie is decided alike each second
	})
	return slices.DeleteFunc(running, func(p Heartbeat) bool { return p.Settings.Mappings == digest }), digest
}

// mappingsDiffer describes the result of otherMappings: "the workers: api web-1 · 4711 (none)".
func (x *facts) mappingsDiffer() string {
	others, digest := x.otherMappings()
	names := make([]string, len(others))
	most := "the workers"
	switch x.Alive[RoleWorker] {
	case 0:
		most = "most processes"
	case 1:
		most = "the worker"
	}
	for i, p := range others {
		names[i] = fmt.Sprintf("%s %s · %d", p.Role, p.Host, p.PID)
		if p.Settings.Mappings == "" {
			names[i] += " (none)"
		}
		if p.Role == RoleWorker {
			most = "most workers"
		}
	}
	if digest == "" {
		most += " (none)"
	}
	return most + ": " + listed(names)
}

// brokenNames lists the broken mappings for a sentence.
func (s Snapshot) brokenNames() string {
	return listed(slices.Sorted(maps.Keys(s.BrokenMappings())))
}

// listed writes up to maxListed names, and the number of the others.
func listed(names []string) string {
	if more := len(names) - maxListed; more > 0 {
		return strings.Join(names[:maxListed], ", ") + " and " + Number(int64(more)) + " more"
	}
	return strings.Join(names, ", ")
}
