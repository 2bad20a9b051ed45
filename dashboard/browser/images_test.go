//go:build images

package browser_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// imageDir is where the documentation has its images.
const imageDir = "../../docs/images"

// The phases of the history in the images. The charts show 15 minutes.
const (
	calm      = 11 * time.Minute
	outage    = 150 * time.Second
	recovered = 75 * time.Second
)

// TestImages takes the images of the documentation, after 15 minutes with an outage. `make images` runs it.
func TestImages(t *testing.T) {
	t.Parallel()
	timeout = 30 * time.Minute
	s := start(t, append(impatient(), people(t))...)
	s.keys = 5000
	for range 4 {
		s.write(t)
	}
	b := open(t)
	b.signIn(t, s, "olga")
	pass(t, calm)
	ctx, cancel := context.WithTimeout(t.Context(), outage+time.Minute)
	defer cancel()
	require.NoError(t, s.postgres.Stop(ctx))
	pass(t, outage)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, sentence, "Postgres has been down for")
	b.shoot(t, "dashboard-overview-outage", "light", screen)
	b.shoot(t, "dashboard-overview-outage-dark", "dark", screen)
	b.shoot(t, "dashboard-overview-outage-phone", "light", phone)

	require.NoError(t, s.postgres.Start(ctx))
	pass(t, recovered)
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, sentence, "Keeping up:")
	b.shoot(t, "dashboard-overview", "light", screen)
	b.shoot(t, "dashboard-overview-dark", "dark", screen)
	b.shoot(t, "dashboard-overview-phone", "dark", phone)
	b.visit(t, s.dashboard.url("/shards"))
	b.waitForText(t, connection, "live")
	b.shoot(t, "dashboard-shards", "light", screen)

	s.bury(t)
	b.letters(t, s, 4)
	b.shoot(t, "dead-letters", "light", screen)
	b.shoot(t, "dead-letters-dark", "dark", screen)
	b.shoot(t, "dead-letters-phone", "light", phone)
	b.visit(t, s.dashboard.url("/keys?key=page:/pricing"))
	b.shoot(t, "counter", "light", screen)
}

// pass lets real time pass: the charts show what happened in it.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// shoot writes an image of the whole page.
func (b *tab) shoot(t *testing.T, name, scheme string, width int64) {
	t.Helper()
	b.prefer(t, scheme)
	var scale float64 = 1
	if width == phone {
		scale = 2
	}
	b.do(t, chromedp.EmulateViewport(width, 600, chromedp.EmulateScale(scale)))
	image, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(imageDir, name+".png"), image, 0o644))
}
