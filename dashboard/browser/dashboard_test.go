package browser_test

import (
	"context"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const sentence = ".state .sentence"

func TestOverviewFollowsAnOutageOfPostgres(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard+"/")
	b.shows(t, sentence, "Keeping up:")
	b.shows(t, "[data-connection]", "live")
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

func TestThePagesWorkWithKeyboardPhoneAndPause(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard+"/")
	b.shows(t, "[data-connection]", "live")
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Click("[data-pause]")))
	b.shows(t, "[data-connection]", "paused")
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Click("[data-pause]"), chromedp.Click(`[data-every="5"]`)))
	b.shows(t, "[data-connection]", "live")
	require.Equal(t, "true", evaluate[string](t, b, `document.querySelector('[data-every="5"]').getAttribute('aria-pressed')`))

	// Reading a chart with the arrow keys.
	evaluate[bool](t, b, "document.querySelector('.plot').focus() ?? true")
	evaluate[bool](t, b, `document.querySelector('.plot').dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}))`)
	b.shows(t, ".plot .readout", "writes")

	for _, width := range []int64{360, 1280} {
		require.NoError(t, chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 740)))
		for _, path := range []string{"/", "/shards"} {
			b.visit(t, s.dashboard+path)
			b.shows(t, "[data-connection]", "live")
			require.LessOrEqual(t, evaluate[int64](t, b, "document.documentElement.scrollWidth"), width, path)
		}
	}
	require.Equal(t, 64, evaluate[int](t, b, "document.querySelectorAll('.heat .cell').length"))

	b.visit(t, s.dashboard+"/asynq")
	b.shows(t, "#root", "aw-flush")
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Click(".aw-bar a[href='/']")))
	b.shows(t, sentence, "Keeping up:")
	b.clean(t, s.dashboard)
}
