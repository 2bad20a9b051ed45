package browser_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// tab is a browser page. It records the problems and the requests of the page.
type tab struct {
	ctx context.Context //nolint:containedctx // chromedp identifies a page by its context

	mu       sync.Mutex
	problems []string
	requests []string // URLs
}

// timeout limits the time of a test in the browser. TestImages sets it higher.
var timeout = 2 * time.Minute

// open starts a separate browser for the test.
func open(t *testing.T) *tab {
	t.Helper()
	program, err := exec.LookPath("chromium")
	require.NoError(t, err, "deploy/setup.sh installs it")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	ctx, endBrowser := chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(program), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.UserDataDir(t.TempDir()))
	t.Cleanup(endBrowser)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	b := &tab{ctx: ctx}
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900)))
	require.NoError(t, chromedp.Listen(ctx, b.note))
	messages := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for message, err := range messages {
			if err != nil {
				return
			}
			if message.IsException() || message.Type == "error" || message.Type == "warning" {
				b.problem(message.Text + " " + message.URL)
			}
		}
	})
	t.Cleanup(func() {
		require.NoError(t, chromedp.Cancel(ctx))
		listening.Wait()
	})
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	return b
}

func (b *tab) problem(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, text)
}

func (b *tab) note(event any) {
	if e, ok := event.(*network.EventRequestWillBeSent); ok {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.requests = append(b.requests, e.Request.URL)
	}
}

func (b *tab) visit(t *testing.T, url string) {
	t.Helper()
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Navigate(url)))
}

// evaluate returns the value of a JavaScript expression.
func evaluate[T any](t *testing.T, b *tab, expression string) T {
	t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(t, err, expression)
	return value
}

// text returns the text of an element, or "" if there is no such element.
func (b *tab) text(t *testing.T, selector string) string {
	t.Helper()
	return evaluate[string](t, b, "document.querySelector('"+selector+"')?.textContent ?? ''")
}

// waitForText waits until an element contains text, and returns all its text.
func (b *tab) waitForText(t *testing.T, selector, text string) string {
	t.Helper()
	var last string
	localtest.Eventually(t, patience, func() (bool, string) {
		last = b.text(t, selector)
		return strings.Contains(last, text), selector + " shows " + last + ", not " + text
	})
	return last
}

func (b *tab) title(t *testing.T) string {
	t.Helper()
	return evaluate[string](t, b, "document.title")
}

// waitForTitle waits until the page's title begins with start.
func (b *tab) waitForTitle(t *testing.T, start string) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		title := b.title(t)
		return strings.HasPrefix(title, start), "the title is " + title + ", not " + start
	})
}

// streamCount returns how many live streams the page has opened.
func (b *tab) streamCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, url := range b.requests {
		if strings.Contains(url, "/live?") {
			n++
		}
	}
	return n
}

// listen starts to record the announcements for screen readers.
func (b *tab) listen(t *testing.T) {
	t.Helper()
	evaluate[bool](t, b, `(window.spoken = []) && new MutationObserver(() => {
		const text = document.querySelector('[data-said]').textContent;
		if (text) window.spoken.push(text);
	}).observe(document.querySelector('[data-said]'), {childList: true}) === undefined`)
}

// heard returns the announcements since listen.
func (b *tab) heard(t *testing.T) []string {
	t.Helper()
	return evaluate[[]string](t, b, "window.spoken")
}

// waitUntilStreamsClosed waits until all of window.streams are closed. A stream that the browser is reconnecting does not count as closed.
func (b *tab) waitUntilStreamsClosed(t *testing.T) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		states := evaluate[[]int](t, b, "window.streams.map((stream) => stream.readyState)")
		return len(states) > 0 && !slices.ContainsFunc(states, func(state int) bool { return state != 2 }), fmt.Sprint("streams: ", states)
	})
}

// do performs actions of a user, such as clicks.
func (b *tab) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(b.ctx, steps...))
}

// click waits until an element is visible and not covered by another, and clicks it, in one step.
func (b *tab) click(t *testing.T, selector string) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		return evaluate[bool](t, b, `(e => {
			if (!e) return false
			e.scrollIntoView({block: "center"})
			const r = e.getBoundingClientRect()
			const top = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)
			if (r.width === 0 || !(e.contains(top) || top?.contains(e))) return false
			e.click()
			return true
		})(document.querySelector(`+strconv.Quote(selector)+`))`), selector + " cannot be clicked"
	})
}

// focus gives the focus to an element, in one step: a live page may replace the element between two.
func (b *tab) focus(t *testing.T, selector string) {
	t.Helper()
	require.True(t, evaluate[bool](t, b, `(e => { e.focus(); return document.activeElement === e })(document.querySelector(`+strconv.Quote(selector)+`))`))
}

// resize sets the size of the page in CSS pixels.
func (b *tab) resize(t *testing.T, width, height int64) {
	t.Helper()
	b.do(t, chromedp.EmulateViewport(width, height))
}

// prefer makes the page light or dark.
func (b *tab) prefer(t *testing.T, scheme string) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(t, err)
}

// forgive waits for the problems that the test caused on purpose, checks their number, and clears them.
func (b *tab) forgive(t *testing.T, expected int) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.problems) >= expected, "the browser has not complained"
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.problems, expected)
	b.problems = nil
}

// requireNoProblems checks that nothing went wrong, and that the page sent requests to the dashboard only.
func (b *tab) requireNoProblems(t *testing.T, p *process) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.problems)
	require.NotEmpty(t, b.requests)
	for _, url := range b.requests {
		require.True(t, strings.HasPrefix(url, p.url("/")) || strings.HasPrefix(url, "data:"), url)
	}
}
