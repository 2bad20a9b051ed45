package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// failurePause is how long the answer of a script that failed is held back from Asynq.
	failurePause = taskCheckInterval

	// idleShare makes the time between two polls a twentieth of the time since there was work last. A worker that has waited for a
	// minute may be late by some more milliseconds; one that has had a task within the last second polls as Asynq does.
	idleShare = 20

	// maxDequeuePause bounds the time between two polls for tasks that may be run now. Somebody may wait for one (POST /v1/flush).
	maxDequeuePause = 250 * time.Millisecond

	// maxForwardPause bounds the time between two polls for delayed tasks that have become due. Asynq keeps due times in whole
	// seconds and polls four times a second, so these are late by a second at most.
	maxForwardPause = 900 * time.Millisecond
)

// backoff is the client that Asynq's server gets. It slows down two things that the server does too often, and passes on all else:
//
//   - When a dequeue fails, the server tries again at once: a Redis that is full is asked tens of thousands of times a second, and
//     one that is away as often as it refuses connections. So the error comes late.
//   - The server polls three queues for tasks twenty times a second, and for delayed ones four times, however long there have been
//     none: 215 commands a second. While the worker is idle, most polls are answered without asking Redis, and the others ask
//     with one plain command whether the script would find anything. No poll is held back, so nothing has to be interrupted when
//     the server stops.
//
// Only scripts are slowed down, since that is what these polls are; the worker's own use Options.Redis itself.
type backoff struct {
	redis.UniversalClient

	polls map[string]*poll // by KEYS[1]

	mu       sync.Mutex // also guards asked of each poll
	lastWork time.Time
}

// poll is a script by which the server asks for something to do.
type poll struct {
	second   string        // KEYS[2]: with KEYS[1] it tells this script from all others
	delayed  bool          // it moves due tasks to pending and returns how many; else it takes a task, or returns nil
	periodic bool          // what it finds does not make the worker busy: sweeps come whether there is work or not
	most     time.Duration // the longest time between two
	asked    time.Time
}

// newBackoff returns a backoff that takes the worker for busy. It knows the polls by their keys (base.PendingKey and so on in
// Asynq 0.26). Should a later Asynq name them otherwise, they are passed on as they come.
func newBackoff(client redis.UniversalClient, prefix string) *backoff {
	b := &backoff{UniversalClient: client, polls: make(map[string]*poll), lastWork: time.Now()}
	for queue := range tasks.Queues(prefix) {
		keys := "asynq:{" + queue + "}:"
		b.polls[keys+"pending"] = &poll{
			second: tasks.PausedKey(queue), periodic: queue == prefix+tasks.QueueSweep, most: maxDequeuePause,
		}
		for _, delayed := range []string{"scheduled", "retry"} {
			b.polls[keys+delayed] = &poll{second: keys + "pending", delayed: true, most: maxForwardPause}
		}
	}
	return b
}

// EvalSha implements redis.Scripter. It blocks for as long as Redis does, and after an error for failurePause, give or take half.
func (b *backoff) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	p := b.find(keys)
	var cmd *redis.Cmd // nil: the script has to be run
	if p != nil {
		cmd = b.spare(ctx, p, keys[0])
	}
	if cmd == nil {
		cmd = b.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	b.note(p, keys, cmd)
	if failed(cmd) {
		pause(ctx)
	}
	return cmd
}

// find returns the poll that a script with these keys is; nil: it is none.
func (b *backoff) find(keys []string) *poll {
	if len(keys) < 2 {
		return nil
	}
	if p := b.polls[keys[0]]; p != nil && p.second == keys[1] {
		return p
	}
	return nil
}

// spare answers a poll of an idle worker without its script; nil: it has to be run. key holds the tasks that it would find.
func (b *backoff) spare(ctx context.Context, p *poll, key string) *redis.Cmd {
	idle, due := b.due(p, time.Now())
	if !due {
		return p.nothing(ctx)
	}
	if !idle {
		return nil
	}
	found, err := b.Exists(ctx, key).Result() // Redis keeps no empty lists and sets
	switch {
	case err != nil:
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	case found == 0:
		return p.nothing(ctx)
	default:
		return nil
	}
}

// due reports whether the worker is idle, and whether it is time to ask Redis, which it notes then.
func (b *backoff) due(p *poll, now time.Time) (idle, due bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	between := now.Sub(b.lastWork) / idleShare
	idle = between > taskCheckInterval
	if idle && now.Sub(p.asked) < min(between, p.most) {
		return idle, false
	}
	p.asked = now
	return idle, true
}

// nothing is the answer of the poll's script when it finds nothing.
func (p *poll) nothing(ctx context.Context) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	if p.delayed {
		cmd.SetVal(int64(0))
	} else {
		cmd.SetErr(redis.Nil)
	}
	return cmd
}

// note ends the worker's idleness when there is work: a task was found, or another script of this server, such as that of an
// aggregation, has dealt with pending tasks. After a failure it ends too, so that the server notices and logs how Redis is.
func (b *backoff) note(p *poll, keys []string, cmd *redis.Cmd) {
	if p == nil && !slices.ContainsFunc(keys, b.pending) {
		return
	}
	if p != nil && p.foundNothing(cmd) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p != nil {
		p.asked = time.Time{} // where there was one task there may be more
	}
	if p == nil || !p.periodic || cmd.Err() != nil {
		b.lastWork = time.Now()
	}
}

// pending reports whether key holds tasks that wait to be taken.
func (b *backoff) pending(key string) bool {
	p := b.polls[key]
	return p != nil && !p.delayed
}

func (p *poll) foundNothing(cmd *redis.Cmd) bool {
	if p.delayed {
		return cmd.Err() == nil && cmd.Val() == int64(0)
	}
	return errors.Is(cmd.Err(), redis.Nil)
}

// failed reports whether Redis could not run the script. It may not know it yet: the caller sends it then.
func failed(cmd *redis.Cmd) bool {
	err := cmd.Err()
	return err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT")
}

func pause(ctx context.Context) {
	timer := time.NewTimer(failurePause/2 + rand.N(failurePause)) //nolint:gosec // chance, not a secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
