package cache

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// sentinelPatience bounds the wait for one answer of a Sentinel. go-redis asks the Sentinel that it knows twice, and then all, within one
// dialTimeout. If its Sentinel hangs (with its machine) and uses that up, go-redis asks only this one for ever.
const sentinelPatience = 250 * time.Millisecond

// sentinels are the Sentinels of a URL.
type sentinels struct{ options redis.UniversalOptions }

// followSentinel makes the client follow a failover if the master hangs. go-redis follows all others. Call it before the first command.
func followSentinel(client *redis.Client, o *redis.UniversalOptions) {
	s := sentinels{*o}
	t := newTopology(client, s.find)
	client.AddHook(nodeHook{topology: t})
	client.AddHook(resendHook{refused: readOnly, renew: func(ctx context.Context) {
		t.renew(ctx, func(masters map[string]bool) {
			if len(masters) == 0 { // no Sentinel answers, so there would be no new connections
				return
			}
			// If several are named, one of them has refused the call, and nobody knows which is right.
			t.conns.retire(func(addr string) bool { return len(masters) == 1 && masters[addr] })
		})
	}})
}

// followServer makes the client of one address connect again when the server has become a replica: the address (DNS, a proxy) may lead to
// the new master by then.
func followServer(client *redis.Client) {
	t := &topology{conns: watched{trouble: func() {}}}
	client.AddHook(nodeHook{topology: t})
	client.AddHook(resendHook{refused: readOnly, renew: func(context.Context) {
		t.conns.retire(func(string) bool { return false })
	}})
}

// find asks all Sentinels at once, and returns every server that one of them names. If these are several, one has just been replaced.
func (s sentinels) find(ctx context.Context) (masters map[string]bool, loaded bool) {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	var mu sync.Mutex
	masters = make(map[string]bool)
	var asked sync.WaitGroup
	for _, addr := range s.options.Addrs {
		asked.Go(func() {
			sentinel := redis.NewSentinelClient(s.at(addr))
			defer func() { _ = sentinel.Close() }()
			master, err := sentinel.GetMasterAddrByName(ctx, s.options.MasterName).Result()
			if err != nil || len(master) < 2 { // it hangs, or does not know the name
				return
			}
			mu.Lock()
			defer mu.Unlock()
			masters[net.JoinHostPort(master[0], master[1])] = true
		})
	}
	asked.Wait()
	return masters, len(masters) > 0
}

// at returns the options of one Sentinel.
func (s sentinels) at(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, Dialer: s.options.Dialer, Username: s.options.SentinelUsername, Password: s.options.SentinelPassword,
		MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout,
		ContextTimeoutEnabled: true, PoolSize: 1, ClientName: s.options.ClientName,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// sentinelDialer returns a dialer for Sentinels and their masters. Its connections are impatient; nodeHook changes that for masters.
func sentinelDialer(o *redis.UniversalOptions) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{DialTimeout: dialTimeout, TLSConfig: o.TLSConfig})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return impatient{conn, addr}, nil
	}
}

// impatient is a connection whose reads wait no longer than sentinelPatience. Reads without a deadline, as of a subscription, are not
// bounded.
type impatient struct {
	net.Conn

	addr string // as a Sentinel names the server, which may be a host name
}

// SetReadDeadline implements net.Conn.
func (c impatient) SetReadDeadline(t time.Time) error {
	if soon := time.Now().Add(sentinelPatience); !t.IsZero() && t.After(soon) {
		t = soon
	}
	return c.Conn.SetReadDeadline(t)
}
