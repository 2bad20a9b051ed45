package browser_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	sentence   = ".state .sentence"
	connection = "[data-connection]"
	spoken     = "[data-said]" // the announcements for screen readers
)

func TestOverviewFollowsAnOutageOfPostgres(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, sentence, "Keeping up:")
	b.waitForText(t, connection, "live")
	line := `document.querySelector('[data-line="w"]').getAttribute('d')`
	before := evaluate[string](t, b, line)
	localtest.Eventually(t, patience, func() (bool, string) {
		after := evaluate[string](t, b, line)
		return len(after) > len(before) && after != before, "the chart does not move: " + after
	})

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	b.waitForText(t, sentence, "Postgres has been down for")
	require.Contains(t, b.text(t, ".state"), "Writes are safe in Redis")
	require.Contains(t, b.title(t), "Postgres has been down")

	require.NoError(t, s.postgres.Start(ctx))
	b.waitForText(t, sentence, "Keeping up:")
	b.requireNoProblems(t, s.dashboard)
}

func TestAPageSaysThatItHasLostItsConnectionUntilItHasOneAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, connection, "live")
	b.waitForText(t, sentence, "Keeping up:")

	s.dashboard.stop()
	b.waitForText(t, connection, "connecting") // a stream has ended: the browser reconnects
	b.waitForText(t, connection, "no connection")
	b.waitForText(t, sentence, "No connection since")
	b.waitForText(t, spoken, "No connection since")
	require.Contains(t, b.text(t, ".state"), "The numbers below are from then")
	require.Contains(t, b.title(t), "No connection since")

	s.run(t, s.dashboard)
	b.waitForText(t, sentence, "Keeping up:")
	b.waitForText(t, connection, "live")
	require.NotContains(t, b.title(t), "No connection")
	b.waitForText(t, spoken, "Keeping up:")
}

// A new problem is announced even if it is no worse than the last one. The same problem with other numbers is not announced again.
func TestANewProblemIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, ".state.good .sentence", "Keeping up:")
	b.listen(t)

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	s.set(t, "a", 1) // a worker notices the outage when it has something to flush
	b.waitForText(t, spoken, "Postgres has been down")
	first := b.text(t, sentence)
	localtest.Eventually(t, patience, func() (bool, string) {
		now := b.text(t, sentence)
		return now != first, "the numbers stay: " + now
	})
	require.NoError(t, s.redis.Stop(ctx))
	b.waitForText(t, spoken, "Redis has not answered")

	all := b.heard(t)
	require.Len(t, all, 2, "%q", all)
}

// While Postgres keeps up, a warning is announced and shown in the title. So is a second one.
func TestAWarningIsAnnounced(t *testing.T) {
	t.Parallel()
	s := start(t)
	redis := s.client(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, ".state.good .sentence", "Keeping up:")
	b.listen(t)

	require.NoError(t, redis.Set(t.Context(), tasks.PausedKey(tasks.QueueRetry), 1, 0).Err())
	b.waitForText(t, ".state.warn .sentence", "Keeping up:")
	b.waitForTitle(t, "! The queue aw-retry is paused.")
	require.NoError(t, redis.Set(t.Context(), tasks.PausedKey(tasks.QueueSweep), 1, 0).Err())
	b.waitForText(t, ".state.warn li:nth-child(2)", "The queue aw-sweep is paused.")
	require.NoError(t, redis.Del(t.Context(), tasks.PausedKey(tasks.QueueSweep)).Err())
	localtest.Eventually(t, patience, func() (bool, string) {
		second := b.text(t, ".state.warn li:nth-child(2)")
		return second == "", second
	})
	require.NoError(t, redis.Del(t.Context(), tasks.PausedKey(tasks.QueueRetry)).Err())
	b.waitForText(t, ".state.good .sentence", "Keeping up:")

	b.waitForText(t, spoken, "Keeping up:")
	b.waitForTitle(t, "Overview")
	all := b.heard(t)
	require.Len(t, all, 3, "%q", all)
	require.Equal(t, []string{"The queue aw-retry is paused.", "The queue aw-sweep is paused."}, all[:2])
}

func TestAPageWithoutAStreamReloadsItsNumbers(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	leave := s.fillStreams(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, connection, "no live updates")
	b.waitForText(t, sentence, "Keeping up:")
	b.listen(t)
	line := `document.querySelector('[data-line="w"]').getAttribute('d')`
	before := evaluate[string](t, b, line)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	b.waitForTitle(t, "! Postgres has been down")
	b.waitForText(t, connection, "no live updates")
	b.waitForText(t, sentence, "Postgres has been down")
	require.NotEqual(t, before, evaluate[string](t, b, line), "the chart stands still")

	leave()
	localtest.Eventually(t, patience, func() (bool, string) {
		text := b.text(t, connection)
		return text == "live", text
	})
	all := b.heard(t)
	require.Len(t, all, 1, "%q", all)
	require.Contains(t, all[0], "Postgres has been down")
}

// Of a tab in the background, only the title is visible.
func TestTheTitleOfATabInTheBackgroundStaysTrue(t *testing.T) {
	t.Parallel()
	s := start(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, connection, "live")
	b.waitForText(t, sentence, "Keeping up:")
	evaluate[bool](t, b, `(window.streams = []) && (window.EventSource = class extends EventSource {
		constructor(url) {
			super(url);
			window.streams.push(this);
		}
	}) && Object.defineProperty(document, 'hidden', {value: true, configurable: true}) === document
		&& document.dispatchEvent(new Event('visibilitychange'))`)
	b.waitUntilStreamsClosed(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	s.set(t, "a", 1)
	b.waitForTitle(t, "! Postgres has been down")
	b.waitUntilStreamsClosed(t)
	s.dashboard.stop()
	b.waitForTitle(t, "! No connection since")
	s.run(t, s.dashboard)
	b.waitForTitle(t, "! Postgres has been down")
	b.waitUntilStreamsClosed(t)

	evaluate[bool](t, b, `delete document.hidden && document.dispatchEvent(new Event('visibilitychange'))`)
	b.waitForText(t, connection, "live")
	streams := b.streamCount()
	at := b.text(t, "[data-part=at]")
	localtest.Eventually(t, patience, func() (bool, string) {
		now := b.text(t, "[data-part=at]")
		return now != at, "no event"
	})
	require.Equal(t, streams, b.streamCount(), "one stream brings all events")
}

func TestThePagesWorkWithKeyboardPhoneAndPause(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)

	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, connection, "live")
	b.click(t, "[data-pause]")
	b.waitForText(t, connection, "paused")
	require.Equal(t, "Paused: Overview · afterwrite", b.title(t))
	require.Equal(t, "Go on", b.text(t, "[data-pause]"))
	require.False(t, evaluate[bool](t, b, `document.querySelector('[data-pause]').hasAttribute('aria-pressed')`), "its label shows the state")
	b.click(t, "[data-pause]")
	b.waitForTitle(t, "Overview")
	b.click(t, `[data-every="5"]`)
	b.waitForText(t, connection, "live")
	require.Equal(t, "true", evaluate[string](t, b, `document.querySelector('[data-every="5"]').getAttribute('aria-pressed')`))

	// Reading a chart with the arrow keys.
	evaluate[bool](t, b, "document.querySelector('.plot').focus() ?? true")
	evaluate[bool](t, b, `document.querySelector('.plot').dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}))`)
	require.Regexp(t, `^\d\d:\d\d:\d\d UTC · writes`, b.waitForText(t, ".plot .readout", "writes"))

	for _, path := range []string{"/", "/mappings", "/shards"} {
		b.visit(t, s.dashboard.url(path))
		b.waitForText(t, connection, "live")
		b.readable(t, path)
	}
	require.Equal(t, 16, evaluate[int](t, b, "document.querySelectorAll('.heat .cell').length"))

	b.visit(t, s.dashboard.url("/asynq"))
	b.waitForText(t, "#root", "aw-flush")
	b.click(t, ".aw-bar a[href='/']")
	b.waitForText(t, sentence, "Keeping up:")
	b.requireNoProblems(t, s.dashboard)
}

func TestThePagesWorkWithoutScripts(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.write(t)
	b := open(t)
	b.withoutScripts(t)

	localtest.Eventually(t, patience, func() (bool, string) { // until the line has two samples
		b.visit(t, s.dashboard.url("/"))
		line := evaluate[string](t, b, `document.querySelector('[data-line="w"]').getAttribute('d')`)
		return len(line) > len("M899.0 100.0"), "the server draws no chart: " + line
	})
	b.waitForText(t, sentence, "Keeping up:")
	b.waitForText(t, "noscript", "Load the page again for new numbers.")
	require.True(t, evaluate[bool](t, b, "document.querySelector('[data-controls]').hidden"), "the controls would do nothing")
	b.visit(t, s.dashboard.url("/shards"))
	require.Equal(t, 16, evaluate[int](t, b, "document.querySelectorAll('.heat .cell').length"))
	b.requireNoProblems(t, s.dashboard)
}
