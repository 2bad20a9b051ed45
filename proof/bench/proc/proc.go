package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of the times in /proc/<pid>/stat: sysconf(_SC_CLK_TCK) is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Stat is what /proc/<pid>/stat says of a process.
type Stat struct {
	PID    int
	Parent int
	Own    time.Duration // user and system time of all its threads
	Reaped time.Duration // the same of those of its children that have ended and were waited for, theirs included
}

// errFields is a stat line that is not as proc(5) has it.
var errFields = errors.New("not a line of /proc/<pid>/stat")

// Parse reads a stat line: "pid (name) state ppid ...", where the name may hold spaces and parentheses. The times are the
// fields 14 to 17 of proc(5).
func Parse(line []byte) (Stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Stat{}, errFields
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	if err != nil {
		return Stat{}, errors.Join(errFields, err)
	}
	fields := bytes.Fields(line[end+1:]) // fields[0] is the 3rd of proc(5)
	if len(fields) < 15 {
		return Stat{}, errFields
	}
	var numbers [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.ParseInt(string(fields[at]), 10, 64); err != nil {
			return Stat{}, errors.Join(errFields, err)
		}
	}
	return Stat{
		PID: pid, Parent: int(numbers[0]),
		Own: time.Duration(numbers[1]+numbers[2]) * tick, Reaped: time.Duration(numbers[3]+numbers[4]) * tick,
	}, nil
}

// CPU is the CPU time of the processes with these IDs, with all their descendants, living or reaped. So Postgres, which has a
// process for each connection, is its postmaster's ID. A process that has ended counts as 0: read it before it ends.
func CPU(pids ...int) (time.Duration, error) {
	all, err := everything()
	if err != nil {
		return 0, err
	}
	return total(all, pids), nil
}

// everything reads all processes. Those that end meanwhile are left out.
func everything() ([]Stat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("read /proc: %w", errors.Join(err, os.ErrNotExist))
	}
	all := make([]Stat, 0, len(paths))
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		stat, err := Parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, stat)
	}
	return all, nil
}

// total adds up what belongs to pids.
func total(all []Stat, pids []int) time.Duration {
	children := make(map[int][]Stat, len(all))
	wanted := make(map[int]bool, len(pids))
	for _, pid := range pids {
		wanted[pid] = true
	}
	var queue []Stat
	for _, s := range all {
		children[s.Parent] = append(children[s.Parent], s)
		if wanted[s.PID] {
			queue = append(queue, s)
		}
	}
	var sum time.Duration
	counted := make(map[int]bool, len(all)) // a child may be in pids as well
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		if counted[s.PID] {
			continue
		}
		counted[s.PID] = true
		sum += s.Own + s.Reaped
		queue = append(queue, children[s.PID]...)
	}
	return sum
}
