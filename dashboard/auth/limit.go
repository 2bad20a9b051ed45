package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of sign-in attempts. An address, which a whole office may share, has a burst of 10 wrong passwords, then 10 a minute. A name,
// which may be attacked from many addresses, has a burst of 30 attempts, then one every 5 seconds. Correct passwords count for the name
// too, because each costs CPU time and leaves a session.
const (
	addressBurst = 10
	addressEvery = 6 * time.Second
	nameBurst    = 30
	nameEvery    = 5 * time.Second

	addressBuckets = 4096
	nameBuckets    = 1024
)

// buckets limits attempts by key, in memory of a fixed size. Keys are hashed to buckets with a random seed, so two keys may share a limit.
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
	// mu makes an attempt atomic: rate.Reservation.CancelAt returns less than was reserved if others reserved in between.
	mu sync.Mutex
}

func newLimits(now func() time.Time) *limits {
	return &limits{
		addresses: newBuckets(addressBuckets, addressEvery, addressBurst),
		names:     newBuckets(nameBuckets, nameEvery, nameBurst),
		now:       now,
	}
}

// take uses up one attempt, or returns the time until the next one.
func (l *limits) take(address netip.Addr, name string) (taken attempt, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	taken = attempt{
		limits: l, at: now,
		address: l.addresses.of(network(address)).ReserveN(now, 1), name: l.names.of(name).ReserveN(now, 1),
	}
	if wait = max(taken.address.DelayFrom(now), taken.name.DelayFrom(now)); wait > 0 {
		taken.address.CancelAt(now)
		taken.name.CancelAt(now)
	}
	return taken, wait
}

// attempt is a sign-in attempt that was counted.
type attempt struct {
	limits        *limits
	at            time.Time
	address, name *rate.Reservation
}

// succeeded returns the attempt to the address, because the password was correct.
func (a attempt) succeeded() {
	a.limits.mu.Lock()
	defer a.limits.mu.Unlock()
	a.address.CancelAt(a.at)
}

// cancel returns the attempt to the address and the name, because the password was not checked.
func (a attempt) cancel() {
	a.limits.mu.Lock()
	defer a.limits.mu.Unlock()
	a.address.CancelAt(a.at)
	a.name.CancelAt(a.at)
}

// network returns what a provider usually assigns to one customer: an IPv4 address, or a /64 of IPv6.
func network(address netip.Addr) string {
	if prefix, err := address.Unmap().WithZone("").Prefix(64); err == nil && address.Unmap().Is6() {
		return prefix.String()
	}
	return address.Unmap().String()
}
