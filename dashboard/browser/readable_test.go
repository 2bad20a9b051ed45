package browser_test

import (
	_ "embed"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

//go:embed contrast.js
var contrast string

// The widths of a small phone and of a screen, in CSS pixels.
const (
	phone  = 360
	screen = 1280
)

// readable checks what holds for every page: it fits a phone, has contrast in light and in dark, and is reached by keyboard.
func (b *tab) readable(t *testing.T, what string) {
	t.Helper()
	for _, width := range []int64{phone, screen} {
		b.resize(t, width, 800)
		require.LessOrEqual(t, evaluate[int64](t, b, "document.documentElement.scrollWidth"), width, "%s has to be scrolled sideways", what)
	}
	for _, scheme := range []string{"light", "dark"} {
		b.prefer(t, scheme)
		result := evaluate[struct {
			Looked int      `json:"looked"`
			Found  []string `json:"found"`
		}](t, b, contrast)
		require.Greater(t, result.Looked, 5, what)
		require.Empty(t, result.Found, "%s, %s", what, scheme)
	}
	b.tabThrough(t, what)
}

// reachable marks what a person can act on, and returns how many there are.
const reachable = `(() => {
	const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), [tabindex="0"]')]
		.filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled);
	for (const e of all) e.dataset.awaited = '';
	document.activeElement?.blur();
	getSelection().removeAllRanges();
	return all.length;
})()`

// reached unmarks what has the focus, and says whether one can see that it has.
const reached = `(() => {
	const e = document.activeElement;
	delete e.dataset.awaited;
	return e === document.body || getComputedStyle(e).outlineStyle !== 'none' ? '' : e.outerHTML.slice(0, 100);
})()`

// tabThrough presses Tab until it has been everywhere.
func (b *tab) tabThrough(t *testing.T, what string) {
	t.Helper()
	n := evaluate[int](t, b, reachable)
	for range n + 2 { // it may begin in the middle, and passes the browser's own bar
		b.do(t, chromedp.KeyEvent(kb.Tab))
		require.Empty(t, evaluate[string](t, b, reached), "%s: no sign of the focus", what)
	}
	require.Empty(t, evaluate[[]string](t, b, `[...document.querySelectorAll('[data-awaited]')].map((e) => e.outerHTML.slice(0, 100))`),
		"%s: Tab does not come here", what)
}

// withoutScripts makes the pages that are visited from now on run none.
func (b *tab) withoutScripts(t *testing.T) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
}
