package dashboard

import (
	"slices"

	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/tasks"
)

// paused reports whether somebody has paused the queue.
func (c condition) paused(queue string) bool { return slices.Contains(c.Paused, queue) }

// flushesPaused is that nothing is taken out of the queue of flushes: what explains a backlog of any age. said is what waits, and
// left how long that can go on.
func flushesPaused(said, left string) finding {
	return finding{
		levelBad, "The queue " + tasks.QueueFlush + " is paused: " + said + ".",
		"Writes are safe in Redis." + left + " Until it is resumed, workers bring keys to Postgres only when they are long overdue." +
			resume(tasks.QueueFlush),
	}
}

// pauses are the queues that are paused, but for what flow says.
func pauses(c condition, f fleet) []finding {
	var found []finding
	if c.paused(tasks.QueueFlush) && (f.Alive[pulse.RoleWorker] == 0 || f.Up == 0) {
		found = append(found, flushesPaused("flushes wait", ""))
	}
	if c.paused(tasks.QueueRetry) {
		found = append(found, finding{
			levelWarn, "The queue " + tasks.QueueRetry + " is paused.",
			"Rows that Postgres refused are tried again by sweeps only, and do not become dead letters." + resume(tasks.QueueRetry),
		})
	}
	if c.paused(tasks.QueueSweep) {
		found = append(found, finding{
			levelWarn, "The queue " + tasks.QueueSweep + " is paused.",
			"Keys whose task was lost are found later, by the workers themselves, and old tombstones stay." + resume(tasks.QueueSweep),
		})
	}
	return found
}

// resume says how. Asynq has no other mark of a pause than the key.
func resume(queue string) string {
	return " Resume it in Asynqmon (page Queues, with AFTERWRITE_DASHBOARD_WRITE=true), or with `redis-cli DEL '" +
		tasks.PausedKey(queue) + "'`."
}
