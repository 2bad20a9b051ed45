package dashboard

import (
	"fmt"

	"github.com/afterwrite/afterwrite/internal/sample"
)

// aside says why keys wait for another try: their rows are locked or slow, or Postgres refused them. Redis does not know which,
// but workers count the former each time, so within the window each of these keys at least once.
func aside(c condition) []finding {
	var found []finding
	if c.Hindered > 0 {
		found = append(found, finding{
			levelWarn, fmt.Sprintf("Rows in Postgres are locked by somebody else, or slow: %s put aside in the last %d s.",
				count(c.Hindered, "was", "were"), sample.HinderedWindow),
			"Their counters take writes, and the others are flushed. They are tried again every few seconds for as long as it lasts, " +
				"and never become dead letters. Look in pg_stat_activity for an old transaction, and end it; a worker's log names a key.",
		})
	}
	refused := c.Retrying - c.Hindered
	switch {
	case refused <= 0:
	case c.unheard():
		found = append(found, finding{
			levelWarn, count(refused, "key waits", "keys wait") + " for a retry.",
			"Postgres refused their rows, or somebody else holds them locked: which is not known now. They are tried again.",
		})
	default:
		title := count(refused, "key waits", "keys wait") + " for a retry."
		if c.Hindered > 0 {
			title = "At least " + title
		}
		found = append(found, finding{
			levelWarn, title,
			"Postgres refused their rows. They are tried again, with growing pauses, and become dead letters in the end.",
		})
	}
	return found
}
