package command

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// progressBar returns a function that draws a bar with a text on stderr, at most five times a second, or nil if stderr is not a terminal.
// all is an approximate total.
func progressBar(w *world, all int64) func(done int64, text string) {
	const width, every = 30, 200 * time.Millisecond
	terminal, ok := w.stderr.(*os.File)
	if !ok || !isatty.IsTerminal(terminal.Fd()) {
		return nil
	}
	var last time.Time
	return func(done int64, text string) {
		if time.Since(last) < every {
			return
		}
		last = time.Now()
		filled := int(min(width, done*width/max(1, all)))
		fmt.Fprintf(w.stderr, "\r[%s%s] %d of about %d, %s ", strings.Repeat("#", filled), strings.Repeat(".", width-filled), done,
			max(done, all), text)
	}
}
