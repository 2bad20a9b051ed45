package dashboard

import "strings"

// News is what the tab's title and a screen reader have of a state, which is one sentence: its headline, or where that says that
// Postgres keeps up and something else is to be looked after, the first of that.
func (s state) News() string {
	if s.Level == levelWarn && len(s.Also) > 0 && strings.HasPrefix(s.Title, "Keeping up:") {
		return s.Also[0].Title
	}
	return s.Title
}
