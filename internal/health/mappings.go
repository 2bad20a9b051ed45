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

// countingRoles are the roles that read AFTERWRITE_MAPPINGS and AFTERWRITE_HISTORY.
var countingRoles = []string{RoleAPI, RoleWorker, RoleDashboard}

// setting is a setting that all countingRoles must have alike. It returns "" for a process that does not have it.
type setting func(s *Settings) string

func mappingsSetting(s *Settings) string { return s.Mappings }
func historySetting(s *Settings) string  { return s.History }

// different returns the running processes whose setting differs from that of most workers, or of most processes if no worker runs. It also
// returns the value of these.
func (s Snapshot) different(of setting) (others []Heartbeat, most string) {
	var running []Heartbeat
	votes := make(map[string]int) // by value; a worker outvotes all other processes
	for _, p := range s.Processes {
		if !p.Alive() || !slices.Contains(countingRoles, p.Role) {
			continue
		}
		running = append(running, p)
		votes[of(&p.Settings)]++
		if p.Role == RoleWorker {
			votes[of(&p.Settings)] += maxProcesses
		}
	}
	if len(votes) < 2 {
		return nil, ""
	}
	most = slices.MaxFunc(slices.Collect(maps.Keys(votes)), func(x, y string) int {
		return cmp.Or(cmp.Compare(votes[x], votes[y]), cmp.Compare(x, y)) // a tie is decided alike each second
	})
	return slices.DeleteFunc(running, func(p Heartbeat) bool { return of(&p.Settings) == most }), most
}

// differ is the condition of a finding: the setting differs between processes.
func differ(of setting) func(x *facts) bool {
	return func(x *facts) bool {
		others, _ := x.different(of)
		return len(others) > 0
	}
}

// describe describes the result of different: "the workers: api web-1 · 4711 (none)".
func (x *facts) describe(of setting) string {
	others, value := x.different(of)
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
		if of(&p.Settings) == "" {
			names[i] += " (none)"
		}
		if p.Role == RoleWorker {
			most = "most workers"
		}
	}
	if value == "" {
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
