package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

const (
	// reloadEvery is the time between two reads of a cluster's masters, plus or minus a quarter, while calls fail.
	reloadEvery = 200 * time.Millisecond

	// After troubleLong of failing calls the masters are read once in reloadSlowly: the failure is not a failover.
	troubleLong  = 15 * time.Second
	reloadSlowly = time.Second

	// calmAfter is how long after the last failure the masters are still read. A cluster replaces a master after its cluster-node-timeout,
	// and an idle process may have no call that fails meanwhile.
	calmAfter = 5 * time.Second

	// reloadTimeout bounds one read of the masters.
	reloadTimeout = 500 * time.Millisecond
)

// topology finds out which servers are the masters while calls fail, and closes hung connections to servers that are no longer masters. It
// runs in the background only while there is trouble.
type topology struct {
	client redis.UniversalClient
	conns  watched

	// find returns the addresses of the masters, and of servers that may be one. loaded is false if nobody has answered. It blocks for
	// reloadTimeout at most.
	find func(ctx context.Context) (masters map[string]bool, loaded bool)

	renewals singleflight.Group // of calls that were refused: one read of the masters for all

	mu      sync.Mutex
	running bool      // follow runs
	failed  time.Time // the last failure
}

func newTopology(client redis.UniversalClient, find func(ctx context.Context) (map[string]bool, bool)) *topology {
	t := &topology{client: client, find: find}
	t.conns.trouble = t.suspect
	return t
}

// suspect makes the masters be found now, and for calmAfter. It does not block.
func (t *topology) suspect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = time.Now()
	if !t.running {
		t.running = true
		go t.follow()
	}
}

// follow finds the masters until no call has failed for calmAfter, or the client is closed.
func (t *topology) follow() {
	began := time.Now()
	for !t.calm() && !t.closed() {
		masters, loaded := t.find(context.Background())
		if !loaded || t.conns.closeHung(func(addr string) bool { return masters[addr] }) {
			t.again() // nobody has answered, or a call still hangs, so that it has not failed yet
		}
		every := reloadEvery
		if time.Since(began) > troubleLong {
			every = reloadSlowly
		}
		time.Sleep(every*3/4 + rand.N(every/2)) //nolint:gosec // jitter needs no secret
	}
}

// renew finds the masters for a call that was refused, and hands them to use, which may be nil. It hands over none if nobody has answered.
// Concurrent calls share this. It blocks for reloadTimeout at most.
func (t *topology) renew(ctx context.Context, use func(masters map[string]bool)) {
	<-t.renewals.DoChan("", func() (any, error) {
		masters, _ := t.find(context.WithoutCancel(ctx)) // the others still need it if this caller leaves
		if use != nil {
			use(masters)
		}
		return nil, nil //nolint:nilnil // there is no result
	})
}

// calm reports whether no call has failed for calmAfter. Then follow ends.
func (t *topology) calm() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = time.Since(t.failed) <= calmAfter
	return !t.running
}

func (t *topology) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = time.Now()
}

// closed reports whether the client is closed.
func (t *topology) closed() bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // so that an open client does not use the network
	return errors.Is(t.client.Ping(ctx).Err(), redis.ErrClosed)
}

// nodeHook observes the connections and calls of one server.
type nodeHook struct {
	topology *topology
	loads    *atomic.Int64 // counts the reads of a cluster's masters that have succeeded
}

// DialHook watches each connection, and a failure to connect.
func (h nodeHook) DialHook(next redis.DialHook) redis.DialHook {
	return h.topology.conns.dialHook(next)
}

// ProcessHook observes refusals of single commands, and counts the reads of the masters.
func (h nodeHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if _, slots := cmd.(*redis.ClusterSlotsCmd); slots && err == nil {
			h.loads.Add(1)
		}
		h.observe(err)
		return err
	}
}

// ProcessPipelineHook observes refusals of pipelined commands.
func (h nodeHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			h.observe(cmd.Err())
		}
		return err
	}
}

// elsewhere are the refusals of a server that is not the master, or is not ready: another one may be.
var elsewhere = []string{moved, readOnly, "CLUSTERDOWN", "MASTERDOWN", "LOADING"}

func (h nodeHook) observe(err error) {
	if err != nil && refusalOf(err, elsewhere) != "" {
		h.topology.conns.trouble()
	}
}
