package browser_test

import (
	"context"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const (
	sentence   = ".state .sentence"
	connection = "[data-connection]"
)

func TestOverviewFollowsAnOutageOfPostgres(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard.url("/"))
	b.shows(t, sentence, "Keeping up:")
	b.shows(t, connection, "live")
	line := `document.querySelector('[data-line="w"]').getAttribute('d')`
	before := evaluate[string](t, b, line)
	localtest.Eventually(t, patience, func() (bool, string) {
		after := evaluate[string](t, b, line)
		return len(after) > len(before) && after != before, "the chart does not move: " + after
	})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	b.shows(t, sentence, "Postgres has been down for")
	require.Contains(t, b.text(t, ".state"), "Writes are safe in Redis")
	require.Contains(t, evaluate[string](t, b, "document.title"), "Postgres has been down")

	require.NoError(t, s.postgres.Start(ctx))
	b.shows(t, sentence, "Keeping up:")
	b.clean(t, s.dashboard)
}

func TestAPageSaysThatItHasLostItsConnectionUntilItHasOneAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.shows(t, connection, "live")
	b.shows(t, sentence, "Keeping up:")

	s.dashboard.stop()
	b.shows(t, connection, "no connection")
	b.shows(t, sentence, "No connection since")
	require.Contains(t, b.text(t, ".state"), "The numbers below are from then")
	require.Contains(t, evaluate[string](t, b, "document.title"), "No connection since")

	s.run(t, s.dashboard)
	b.shows(t, sentence, "Keeping up:")
	b.shows(t, connection, "live")
	require.NotContains(t, evaluate[string](t, b, "document.title"), "No connection")
}

func TestThePagesWorkWithKeyboardPhoneAndPause(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard.url("/"))
	b.shows(t, connection, "live")
	b.do(t, chromedp.Click("[data-pause]"))
	b.shows(t, connection, "paused")
	b.do(t, chromedp.Click("[data-pause]"), chromedp.Click(`[data-every="5"]`))
	b.shows(t, connection, "live")
	require.Equal(t, "true", evaluate[string](t, b, `document.querySelector('[data-every="5"]').getAttribute('aria-pressed')`))

	// Reading a chart with the arrow keys.
	evaluate[bool](t, b, "document.querySelector('.plot').focus() ?? true")
	evaluate[bool](t, b, `document.querySelector('.plot').dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}))`)
	b.shows(t, ".plot .readout", "writes")

	for _, path := range []string{"/", "/shards"} {
		b.visit(t, s.dashboard.url(path))
		b.shows(t, connection, "live")
		b.readable(t, path)
	}
	require.Equal(t, 64, evaluate[int](t, b, "document.querySelectorAll('.heat .cell').length"))

	b.visit(t, s.dashboard.url("/asynq"))
	b.shows(t, "#root", "aw-flush")
	b.do(t, chromedp.Click(".aw-bar a[href='/']"))
	b.shows(t, sentence, "Keeping up:")
	b.clean(t, s.dashboard)
}

func TestThePagesWorkWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)
	b.withoutScripts(t)

	localtest.Eventually(t, patience, func() (bool, string) { // the line has two samples
		b.visit(t, s.dashboard.url("/"))
		line := evaluate[string](t, b, `document.querySelector('[data-line="w"]').getAttribute('d')`)
		return len(line) > len("M899.0 100.0"), "the server draws no chart: " + line
	})
	b.shows(t, sentence, "Keeping up:")
	b.shows(t, "noscript", "Load the page again for new numbers.")
	require.True(t, evaluate[bool](t, b, "document.querySelector('[data-controls]').hidden"), "controls that do nothing")
	b.visit(t, s.dashboard.url("/shards"))
	require.Equal(t, 64, evaluate[int](t, b, "document.querySelectorAll('.heat .cell').length"))
	b.clean(t, s.dashboard)
}
