package main

import (
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/proc"
)

// cpuTimes are the CPU times of processes so far.
type cpuTimes map[string]time.Duration

// cpuOrder is how tables show them.
var cpuOrder = []string{"api", "worker", "scheduler", "redis", "postgres"}

// readCPU reads those of the two servers, and of what runs of the system.
func (b *bench) readCPU(sys *system) (cpuTimes, error) {
	pids := map[string][]int{"redis": {sys.stage.RedisPID()}, "postgres": {b.world.Postgres.Pid()}}
	if sys.api != nil {
		pids["api"] = []int{sys.api.PID}
	}
	if sys.scheduler != nil {
		pids["scheduler"] = []int{sys.scheduler.PID}
	}
	for _, w := range sys.workers {
		if w != nil {
			pids["worker"] = append(pids["worker"], w.PID)
		}
	}
	times := make(cpuTimes, len(pids))
	for name, list := range pids {
		used, err := proc.CPU(list...)
		if err != nil {
			return nil, err
		}
		times[name] = used
	}
	return times, nil
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

// perMillion is what was used for that many increments in seconds, as if they had been a million.
func perMillion(used time.Duration, increments int64) float64 {
	return used.Seconds() * million / float64(increments)
}

// noteCPU keeps what each process used for that many increments, as if they had been a million.
func (b *bench) noteCPU(keys string, used cpuTimes, increments int64) {
	if b.cpu[keys] == nil {
		b.cpu[keys] = make(map[string][]float64)
	}
	for name, time := range used {
		b.cpu[keys][name] = append(b.cpu[keys][name], perMillion(time, increments))
	}
}
