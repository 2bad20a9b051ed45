package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxSkew is how far clocks may be apart. Waiting times and the epochs of unsynced writes are of Redis's clock, and
// the times of tasks are of the processes', so a difference shows as sync lag and delays tasks; below a second nobody notices.
const maxSkew = time.Second

func checkRedisClock(ctx context.Context, client redis.UniversalClient) Finding {
	before := time.Now()
	there, err := client.Time(ctx).Result()
	if err != nil {
		return unchecked("redis clock", err)
	}
	return checkClock("redis clock", before, there, time.Now())
}

// checkClock judges the time that a server told between before and after of our own clock.
func checkClock(name string, before, there, after time.Time) Finding {
	// The server's answer was made somewhere between, most likely in the middle; what is less than half of the round
	// trip may as well be no difference.
	half := after.Sub(before) / 2
	skew := there.Sub(before.Add(half)).Round(time.Millisecond)
	f := Finding{Name: name, Status: OK, Detail: fmt.Sprintf("%s ahead of this machine's (±%s)", skew, half.Round(time.Millisecond))}
	if skew < 0 {
		f.Detail = fmt.Sprintf("%s behind this machine's (±%s)", -skew, half.Round(time.Millisecond))
	}
	if skew.Abs()-half > maxSkew {
		f.Status, f.Fix = Warning, "synchronize the clocks of both machines (NTP)"
	}
	return f
}
