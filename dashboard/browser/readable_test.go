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

// readable checks that a page fits a phone, has enough contrast in light and in dark, and can be used by keyboard.
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

// reachable marks the interactive elements, and returns their number.
const reachable = `(() => {
	const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), [tabindex="0"]')]
		.filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled);
	for (const e of all) e.dataset.awaited = '';
	document.activeElement?.blur();
	getSelection().removeAllRanges();
	return all.length;
})()`

// reached removes the mark of the focused element. It returns the element's HTML if the focus is not visible, else "".
const reached = `(() => {
	const e = document.activeElement;
	delete e.dataset.awaited;
	return e === document.body || getComputedStyle(e).outlineStyle !== 'none' ? '' : e.outerHTML.slice(0, 100);
})()`

// tabThrough checks that Tab reaches every interactive element, and that the focus is always visible.
func (b *tab) tabThrough(t *testing.T, what string) {
	t.Helper()
	n := evaluate[int](t, b, reachable)
	for range n + 2 { // the focus may start in the middle, and passes through the browser's own controls
		b.do(t, chromedp.KeyEvent(kb.Tab))
		require.Empty(t, evaluate[string](t, b, reached), "%s: the focus is not visible", what)
	}
	require.Empty(t, evaluate[[]string](t, b, `[...document.querySelectorAll('[data-awaited]')].map((e) => e.outerHTML.slice(0, 100))`),
		"%s: Tab does not reach these", what)
}

// withoutScripts disables JavaScript in the pages that are visited from now on.
func (b *tab) withoutScripts(t *testing.T) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	require.NoError(t, err)
}
