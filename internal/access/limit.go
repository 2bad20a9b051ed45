package access

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of tries to sign in. An address may be shared by a whole office, a name by attackers everywhere: so ten wrong passwords
// from one address at once and then ten a minute; and thirty for one name, wrong or right, and then one every five seconds. Right
// ones are bounded too, since each takes a core for a while and leaves a session: a user is one person, and signs in a few times a
// day.
const (
	addressBurst = 10
	addressEvery = 6 * time.Second
	nameBurst    = 30
	nameEvery    = 5 * time.Second

	addressBuckets = 4096
	nameBuckets    = 1024
)

// buckets limits tries by what is tried, in memory of a fixed size: what is tried is hashed to one of the buckets, by a hash
// that nobody else can compute. Two may share one, and then wait for each other: that tells nothing and grows nothing.
type buckets struct {
	seed     maphash.Seed
	limiters []*rate.Limiter
}

func newBuckets(n int, every time.Duration, burst int) *buckets {
	b := &buckets{seed: maphash.MakeSeed(), limiters: make([]*rate.Limiter, n)}
	for i := range b.limiters {
		b.limiters[i] = rate.NewLimiter(rate.Every(every), burst)
	}
	return b
}

func (b *buckets) of(what string) *rate.Limiter {
	return b.limiters[maphash.String(b.seed, what)%uint64(len(b.limiters))]
}

// limits are those of sign-ins.
type limits struct {
	addresses, names *buckets
	now              func() time.Time
	// mu makes a try one step: a limiter gives back less than it took where others reserved in between.
	mu sync.Mutex
}

func newLimits(now func() time.Time) *limits {
	return &limits{
		addresses: newBuckets(addressBuckets, addressEvery, addressBurst),
		names:     newBuckets(nameBuckets, nameEvery, nameBurst),
		now:       now,
	}
}

// take takes one try, or says how long to wait for the next.
func (l *limits) take(address netip.Addr, name string) (taken try, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	taken = try{
		limits: l, at: now,
		address: l.addresses.of(network(address)).ReserveN(now, 1), name: l.names.of(name).ReserveN(now, 1),
	}
	if wait = max(taken.address.DelayFrom(now), taken.name.DelayFrom(now)); wait > 0 {
		taken.address.CancelAt(now)
		taken.name.CancelAt(now)
	}
	return taken, wait
}

// try is one that was taken.
type try struct {
	limits        *limits
	at            time.Time
	address, name *rate.Reservation
}

// wasRight gives the address its try back: others may sign in from there.
func (t try) wasRight() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.address.CancelAt(t.at)
}

// wasNone gives both back: the password was not looked at.
func (t try) wasNone() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.address.CancelAt(t.at)
	t.name.CancelAt(t.at)
}

// network is what one customer of a provider has: an IPv4 address, or an IPv6 network of 64 bits.
func network(address netip.Addr) string {
	if prefix, err := address.Unmap().WithZone("").Prefix(64); err == nil && address.Unmap().Is6() {
		return prefix.String()
	}
	return address.Unmap().String()
}
