package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/pulse"
)

func TestTheNewsOfAWarningIsWhatItWarnsOf(t *testing.T) {
	t.Parallel()
	news := func(change func(c *condition)) string {
		c := well()
		change(&c)
		return judge(c).News()
	}
	require.Equal(t, "Keeping up: 1.2 s behind.", news(func(*condition) {}))
	require.Equal(t, "1 dead letter needs somebody.", news(func(c *condition) { c.Dead = 1 }))
	require.Equal(t, "1 dead letter needs somebody.", news(func(c *condition) { c.Dead, c.Dirty, c.Oldest = 1, 0, 0 }))
	require.Equal(t, "No scheduler is running.", news(func(c *condition) { c.Processes[2].Age = time.Minute }))
	require.Equal(t, "1 of 2 workers cannot reach Postgres.", news(func(c *condition) {
		down := process(pulse.RoleWorker)
		down.Postgres, c.Dead = pulse.PostgresDown, 1
		c.Processes = append(c.Processes, down)
	}), "a headline that is a warning itself")
	require.Equal(t, "Redis has not answered for 5.0 s.", news(func(c *condition) { c.Failed = 5 * time.Second }))
}
