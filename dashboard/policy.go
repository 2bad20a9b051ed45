package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
)

// ownPolicy is the Content-Security-Policy (W3C CSP Level 3) of our own pages: what they load, ask and send is from here,
// and nothing stands within a page, neither script nor style.
const ownPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" +
	"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// inlineScript finds the scripts in a page that are not files.
var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// monitorPolicy is the strictest policy that Asynqmon's page works with: its own scripts, and those within the page by
// their hashes. It writes its styles from scripts (Material UI), so those cannot be named. The fonts that it asks
// fonts.googleapis.com for are refused: an operator's page tells no third party that it is open, and it does without them.
func monitorPolicy(page []byte) (string, error) {
	matches := inlineScript.FindAllSubmatch(page, -1)
	scripts := make([]string, 0, len(matches)+1)
	scripts = append(scripts, "'self'")
	for _, match := range matches {
		sum := sha256.Sum256(match[1])
		scripts = append(scripts, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	if len(scripts) == 1 {
		return "", errNoScript
	}
	return "default-src 'none'; script-src " + strings.Join(scripts, " ") +
		"; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'" +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}

// monitorPage is what Asynqmon answers for each of its paths that is a page.
func monitorPage(monitor http.Handler) ([]byte, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, asynqPath, nil)
	if err != nil {
		return nil, err
	}
	page := &pageRecorder{header: make(http.Header)}
	monitor.ServeHTTP(page, request)
	return page.body.Bytes(), nil
}

// withPolicy sets the headers that limit what a browser does with an answer.
func withPolicy(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // for browsers without frame-ancestors
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// pageRecorder keeps the body of one answer.
type pageRecorder struct {
	header http.Header
	body   bytes.Buffer
}

func (p *pageRecorder) Header() http.Header         { return p.header }
func (p *pageRecorder) Write(b []byte) (int, error) { return p.body.Write(b) }
func (p *pageRecorder) WriteHeader(int)             {}
