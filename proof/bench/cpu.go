package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/procfs"

	"github.com/afterwrite/afterwrite/proof/world"
)

// cpuTimes holds the CPU time that each part of a system has used since its start.
type cpuTimes map[string]time.Duration

// cpuOrder is the order of the parts in tables.
var cpuOrder = []string{"api", "worker", "scheduler", "redis", "postgres"}

// readCPU reads the CPU times of the two servers and of the system's running processes.
func (b *bench) readCPU(sys *system) (cpuTimes, error) {
	pids := map[string][]int{"redis": {sys.stage.RedisPID()}, "postgres": {b.world.Postgres.Pid()}}
	for name, processes := range map[string][]*world.Process{"api": {sys.api}, "scheduler": {sys.scheduler}, "worker": sys.workers} {
		for _, p := range processes {
			if p != nil {
				pids[name] = append(pids[name], p.Pid())
			}
		}
	}
	if replica := sys.stage.ReplicaPID(); replica != 0 {
		pids["replica"] = []int{replica}
	}
	all, err := everyProcess()
	if err != nil {
		return nil, err
	}
	times := make(cpuTimes, len(pids))
	for name, list := range pids {
		times[name] = cpuTime(all, list)
	}
	return times, nil
}

// everyProcess reads /proc/<pid>/stat of all processes. It leaves out processes that end meanwhile.
func everyProcess() (map[int]procfs.ProcStat, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	all := make(map[int]procfs.ProcStat, len(processes))
	for _, p := range processes {
		if stat, err := p.Stat(); err == nil {
			all[p.PID] = stat
		}
	}
	return all, nil
}

// tick is the unit of times in /proc/<pid>/stat. sysconf(_SC_CLK_TCK) is 100 on every Linux that Go supports.
const tick = 10 * time.Millisecond

// cpuTime returns the CPU time of processes and all their descendants, running or reaped. So the postmaster's ID covers all backends.
// A process in pids that has ended counts as 0, so read its time before its end.
func cpuTime(all map[int]procfs.ProcStat, pids []int) time.Duration {
	var sum time.Duration
	for _, s := range all {
		if descends(all, s, pids) {
			sum += time.Duration(int(s.UTime+s.STime)+s.CUTime+s.CSTime) * tick
		}
	}
	return sum
}

// descends reports whether a process is in pids, or a descendant of a process in pids.
func descends(all map[int]procfs.ProcStat, s procfs.ProcStat, pids []int) bool {
	for range all { // bounds the number of parents
		if slices.Contains(pids, s.PID) {
			return true
		}
		parent, found := all[s.PPID]
		if !found {
			return false
		}
		s = parent
	}
	return false
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	used := make(cpuTimes, len(t))
	for name, time := range t {
		used[name] = time - before[name]
	}
	return used
}

func (t cpuTimes) sum() time.Duration {
	var sum time.Duration
	for _, time := range t {
		sum += time
	}
	return sum
}

// perMillion converts the CPU time of so many increments to seconds per 1,000,000 increments.
func perMillion(used time.Duration, increments int64) float64 {
	return used.Seconds() * million / float64(increments)
}

// noteCPU records the CPU time of each part per 1,000,000 increments.
func (b *bench) noteCPU(keys string, used cpuTimes, increments int64) {
	if b.cpu[keys] == nil {
		b.cpu[keys] = make(map[string][]float64)
	}
	for name, time := range used {
		b.cpu[keys][name] = append(b.cpu[keys][name], perMillion(time, increments))
	}
}
