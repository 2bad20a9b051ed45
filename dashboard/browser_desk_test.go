package dashboard_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// deskImages makes TestOperatorsRedriveInABrowser write the images of the documentation.
var deskImages = flag.Bool("desk-images", false, "write docs/images/dead-letters*.png")

// browserPatience bounds all that a test does in a browser.
const browserPatience = 90 * time.Second

// browser is a Chromium of this test's own.
type browser struct {
	context.Context //nolint:containedctx // that is how chromedp hands a browser on

	mu       sync.Mutex
	problems []string
}

// openBrowser starts one, and fails the test at its end if a page had errors on its console.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), browserPatience)
	t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.UserDataDir(t.TempDir()),
	}
	allocated, end := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(end)
	page, closePage := chromedp.NewContext(allocated)
	t.Cleanup(closePage)
	b := &browser{Context: page}
	require.NoError(t, chromedp.Listen(page, b.listen), "is chromium installed?")
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Empty(t, b.problems, "on the browser's console")
	})
	return b
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	}
}

func (b *browser) run(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(b, steps...))
}

// text waits for an element and returns its text.
func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	b.run(t, chromedp.WaitVisible(selector))
	text, err := chromedp.Run(b, chromedp.Text(selector))
	require.NoError(t, err)
	return text
}

// signIn is what somebody types.
func (b *browser) signIn(t *testing.T, d *door, name string) {
	t.Helper()
	b.run(t,
		chromedp.Navigate("http://"+d.address+"/dead"),
		chromedp.WaitVisible("#name"),
		chromedp.SendKeys("#name", name),
		chromedp.SendKeys("#password", password+"\n"),
		chromedp.WaitVisible(".visitor"),
	)
}

func TestOperatorsRedriveInABrowser(t *testing.T) {
	t.Parallel()
	d := setupDesk(t)
	d.work(t)
	d.examples(t)
	olga := d.serve(t, false, access.Options{Users: people()})
	b := openBrowser(t)
	b.signIn(t, olga, "olga")
	b.images(t)

	b.run(t, chromedp.Click(`input[value="page:/pricing"]`), chromedp.Click(`.bulk button.primary`))
	require.Contains(t, b.text(t, `.notice.good`), "1 due again; 1 in Postgres now")
	rows, err := d.store.Read(t.Context(), []counter.Key{"page:/pricing"})
	require.NoError(t, err)
	require.Equal(t, int64(10412), rows["page:/pricing"].Value)

	b.run(t,
		chromedp.Click(`button[aria-label="Discard video:big-buck-bunny:plays"]`),
		chromedp.WaitVisible(`.danger.solid`),
	)
	b.run(t, chromedp.Click(`.danger.solid`))
	require.Contains(t, b.text(t, `.notice.good`), "dropped 2147483901")
	b.run(t, chromedp.Navigate("http://"+olga.address+"/keys?key=page%3A%2Fpricing"), chromedp.WaitVisible("#postgres"))
	b.run(t, chromedp.Navigate("http://"+olga.address+"/actions"), chromedp.WaitVisible(".stack"))
	b.run(t, chromedp.Click(`.visitor button`), chromedp.WaitVisible("#password"))
}

func TestViewersCannotActInABrowser(t *testing.T) {
	t.Parallel()
	d := setupDesk(t)
	d.bury(t, "a", 1, "no")
	b := openBrowser(t)
	b.signIn(t, d.serve(t, true, access.Options{Users: people()}), "vic")
	buttons, err := chromedp.Run(b, chromedp.Evaluate[int](
		`document.querySelectorAll('main button[formaction], main form[method=post], main input[type=checkbox]').length`))
	require.NoError(t, err)
	require.Zero(t, buttons)
	status, err := chromedp.Run(b, chromedp.Evaluate[int](
		`fetch('/dead/redrive', {method: 'POST', body: new URLSearchParams({key: 'a'})}).then(r => r.status)`, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	require.Equal(t, 403, status)
	_, _, err = d.box.Get(t.Context(), "a")
	require.NoError(t, err, "still dead")
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.problems, 1, "the refusal of our own fetch")
	b.problems = nil
}

// examples are dead letters as they look in life.
func (d *desk) examples(t *testing.T) {
	t.Helper()
	const large = `pq: new row for relation "counters" violates check constraint "fits_in_int4" (23514)`
	_, err := d.store.Upsert(t.Context(), []counter.Row{
		{Key: "page:/pricing", Value: 10_391, Version: 2204},
		{Key: "video:big-buck-bunny:plays", Value: 2_147_483_640, Version: 88_120},
		{Key: "post:8841:likes", Value: 512, Version: 519},
	})
	require.NoError(t, err)
	d.bury(t, "page:/pricing", 10_412, `pq: trigger refuse_frozen: the page is frozen until the end of the audit (P0001)`)
	d.bury(t, "video:big-buck-bunny:plays", 2_147_483_901, large)
	d.bury(t, "post:8841:likes", -3, `pq: new row for relation "counters" violates check constraint "likes_not_negative" (23514)`)
	d.bury(t, "user:5f0c1b1e-7c1f-4d0e-9a52-0f4f6a1d9c77:unread-notifications", 41, `pq: partition "counters_2026_11" does not exist for this row (23514)`)
}

// images writes the list of dead letters as the documentation shows it.
func (b *browser) images(t *testing.T) {
	t.Helper()
	b.shot(t, "dead-letters", 1180, 1)
	b.shot(t, "dead-letters-phone", 390, 2)
}

// shot writes an image of the page if asked to.
func (b *browser) shot(t *testing.T, name string, width int64, scale float64) {
	t.Helper()
	if !*deskImages {
		return
	}
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}},
	})
	require.NoError(t, err)
	b.run(t, chromedp.EmulateViewport(width, 600, chromedp.EmulateScale(scale)))
	wide, err := chromedp.Run(b, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
	require.NoError(t, err)
	require.LessOrEqual(t, wide, width, "%s has to be scrolled sideways", name)
	image, err := chromedp.Run(b, chromedp.FullScreenshot(100))
	require.NoError(t, err)
	b.run(t, chromedp.ResetViewport())
	require.NoError(t, os.MkdirAll("../docs/images", 0o755))
	require.NoError(t, os.WriteFile(filepath.Join("../docs/images", name+".png"), image, 0o644))
}
