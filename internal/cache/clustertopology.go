package cache

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// hedgeAfter is how long one read of the masters of a cluster may take before a second begins, which asks another node: the first may hang.
const hedgeAfter = 100 * time.Millisecond

// clusterTopology keeps a cluster client's view of the masters up to date. go-redis reads the masters again only after a reply MOVED, or
// after a minute: it would go on dialing a dead master.
type clusterTopology struct {
	cluster *redis.ClusterClient
	loads   atomic.Int64 // reads of the masters that have succeeded
}

// followCluster makes the client follow failovers. Call it before the first command.
func followCluster(cluster *redis.ClusterClient) {
	c := &clusterTopology{cluster: cluster}
	t := newTopology(cluster, c.reload)
	renew := func(ctx context.Context) { t.renew(ctx, nil) }
	cluster.OnNewNode(func(node *redis.Client) {
		node.AddHook(nodeHook{t, &c.loads})
		node.AddHook(resendHook{refused: moved, renew: renew, node: true})
	})
	cluster.AddHook(resendHook{refused: moved, renew: renew})
}

// reload reads the masters, and returns their addresses. loaded is false if no node has answered; then the client keeps those that it
// knows. It blocks for reloadTimeout at most.
func (c *clusterTopology) reload(ctx context.Context) (masters map[string]bool, loaded bool) {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	before := c.loads.Load()
	found := make(map[string]bool) // a read that is late adds to it after the return
	var mu sync.Mutex
	done := make(chan struct{}, 2)
	read := func() {
		// It reads the masters before it calls the function.
		_ = c.cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			found[node.Options().Addr] = true
			return nil
		})
		done <- struct{}{}
	}
	go read()
	hedge := time.NewTimer(hedgeAfter)
	defer hedge.Stop()
	for reads := 1; ; {
		select {
		case <-hedge.C:
			reads++
			go read()
			continue
		case <-done:
			reads--
		}
		if c.loads.Load() != before || reads == 0 {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(found), c.loads.Load() != before && len(found) > 0
}
