package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of attempts to sign in. From one address, which a whole office may share: ten wrong passwords at once, then ten a minute.
// For one name, which attackers everywhere may try: thirty, wrong or right, then one every five seconds. Right ones are bounded too,
// because each takes a core for a while and leaves a session, and a user signs in only a few times a day.
const (
	addressBurst = 10
	addressEvery = 6 * time.Second
	nameBurst    = 30
	nameEvery    = 5 * time.Second

	addressBuckets = 4096
	nameBuckets    = 1024
)

// buckets limits attempts by key in memory of a fixed size. A key is hashed to one of the buckets, with a random seed. Two keys may share
// a bucket and its limit.
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

func (b *buckets) of(key string) *rate.Limiter {
	return b.limiters[maphash.String(b.seed, key)%uint64(len(b.limiters))]
}

// limits bounds sign-ins.
type limits struct {
	addresses, names *buckets
	now              func() time.Time
	// mu makes an attempt atomic: a limiter gives back less than it took if others reserved in between.
	mu sync.Mutex
}

func newLimits(now func() time.Time) *limits {
	return &limits{
		addresses: newBuckets(addressBuckets, addressEvery, addressBurst),
		names:     newBuckets(nameBuckets, nameEvery, nameBurst),
		now:       now,
	}
}

// take takes one attempt, or returns how long to wait for the next.
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

// try is an attempt that was taken.
type try struct {
	limits        *limits
	at            time.Time
	address, name *rate.Reservation
}

// wasRight gives the attempt back to the address: others may sign in from there.
func (t try) wasRight() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.address.CancelAt(t.at)
}

// wasNone gives the attempt back to the address and the name: the password was not checked.
func (t try) wasNone() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.address.CancelAt(t.at)
	t.name.CancelAt(t.at)
}

// network returns what one customer of a provider usually has: an IPv4 address, or an IPv6 network of 64 bits.
func network(address netip.Addr) string {
	if prefix, err := address.Unmap().WithZone("").Prefix(64); err == nil && address.Unmap().Is6() {
		return prefix.String()
	}
	return address.Unmap().String()
}
