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
	// failurePause is how long pollClient delays the error of a failed script.
	failurePause = taskCheckInterval

	// idleShare makes the time between two polls a twentieth of the time since the last work. A worker that had a task within the last
	// second polls like Asynq; after a minute without work it may start a task later.
	idleShare = 20

	// maxDequeuePause bounds the time between two polls for pending tasks. A client may wait for one (POST /v1/flush).
	maxDequeuePause = 250 * time.Millisecond

	// maxForwardPause bounds the time between two polls for delayed tasks that are due. Asynq keeps due times in whole seconds and polls
	// four times a second, so they are late by a second at most.
	maxForwardPause = 900 * time.Millisecond
)

// pollClient is the Redis client of Asynq's server. It slows down two things that the server does too often, and passes on all else:
//
//   - When a dequeue fails, the server tries again at once: tens of thousands of times a second in a full Redis. So pollClient delays the
//     error.
//   - The server polls three queues (on a cluster eight) for tasks twenty times a second, and for delayed tasks four times, even if it
//     finds none for hours: 215 commands a second. While the worker is idle, pollClient answers most polls without asking Redis, and asks
//     for the others with one plain command whether the script would find anything. It holds no poll back, so nothing delays the end of
//     the server.
//
// Polls are scripts, so it affects scripts only. The worker's own scripts use Options.Redis.
type pollClient struct {
	redis.UniversalClient

	polls map[string]*poll // by KEYS[1]

	mu       sync.Mutex // also guards asked of each poll
	lastWork time.Time
}

// poll is a script by which the server asks for something to do.
type poll struct {
	second   string        // KEYS[2]: with KEYS[1] it tells this script from all others
	delayed  bool          // it moves due tasks to pending and returns their number; else it takes a task, or returns nil
	periodic bool          // its tasks do not make the worker busy: sweeps come whether there is work or not
	most     time.Duration // the longest time between two polls
	asked    time.Time
}

// newPollClient returns a pollClient for a busy worker. It recognizes polls by their keys (base.PendingKey and so on in Asynq 0.26). If a
// later Asynq names them differently, it passes them all on.
func newPollClient(client redis.UniversalClient, queues tasks.Queues) *pollClient {
	b := &pollClient{UniversalClient: client, polls: make(map[string]*poll), lastWork: time.Now()}
	for _, queue := range queues.Names() {
		keys := "asynq:{" + queue + "}:"
		b.polls[keys+"pending"] = &poll{
			second: tasks.PausedKey(queue), periodic: queue == queues.Sweep(), most: maxDequeuePause,
		}
		for _, delayed := range []string{"scheduled", "retry"} {
			b.polls[keys+delayed] = &poll{second: keys + "pending", delayed: true, most: maxForwardPause}
		}
	}
	return b
}

// EvalSha implements redis.Scripter. It blocks as long as Redis does, and after an error for failurePause, plus or minus half.
func (b *pollClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
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

// find returns the poll with these keys; nil: the script is not a poll.
func (b *pollClient) find(keys []string) *poll {
	if len(keys) < 2 {
		return nil
	}
	if p := b.polls[keys[0]]; p != nil && p.second == keys[1] {
		return p
	}
	return nil
}

// spare answers a poll of an idle worker without running its script; nil: the script has to run. key holds the tasks that it would find.
func (b *pollClient) spare(ctx context.Context, p *poll, key string) *redis.Cmd {
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

// due reports whether the worker is idle, and whether it is time to ask Redis. If it is, it notes the time.
func (b *pollClient) due(p *poll, now time.Time) (idle, due bool) {
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

// nothing returns the reply of the poll's script when it finds nothing.
func (p *poll) nothing(ctx context.Context) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	if p.delayed {
		cmd.SetVal(int64(0))
	} else {
		cmd.SetErr(redis.Nil)
	}
	return cmd
}

// note makes the worker busy if there is work: the poll found a task, or another script of the server, such as an aggregation, used pending
// tasks. A failure makes it busy, too, so that the server notices and logs it.
func (b *pollClient) note(p *poll, keys []string, cmd *redis.Cmd) {
	if p == nil && !slices.ContainsFunc(keys, b.pending) {
		return
	}
	if p != nil && p.foundNothing(cmd) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p != nil {
		p.asked = time.Time{} // there may be more tasks
	}
	if p == nil || !p.periodic || cmd.Err() != nil {
		b.lastWork = time.Now()
	}
}

// pending reports whether key holds pending tasks.
func (b *pollClient) pending(key string) bool {
	p := b.polls[key]
	return p != nil && !p.delayed
}

func (p *poll) foundNothing(cmd *redis.Cmd) bool {
	if p.delayed {
		return cmd.Err() == nil && cmd.Val() == int64(0)
	}
	return errors.Is(cmd.Err(), redis.Nil)
}

// failed reports whether Redis could not run the script. NOSCRIPT is no failure: the caller sends the text then.
func failed(cmd *redis.Cmd) bool {
	err := cmd.Err()
	return err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT")
}

func pause(ctx context.Context) {
	timer := time.NewTimer(failurePause/2 + rand.N(failurePause)) //nolint:gosec // jitter needs no secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
