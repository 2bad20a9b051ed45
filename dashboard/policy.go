package dashboard

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"

	"github.com/afterwrite/afterwrite/dashboard/auth"
)

// ownPolicy is the Content-Security-Policy (W3C CSP Level 3) of the dashboard's pages. They use this server only, and have no inline
// script or style.
const ownPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" +
	"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// inlineScript matches the inline scripts of a page.
var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// monitorPolicy returns the strictest policy under which Asynqmon's page works: its own scripts, and inline scripts by their hashes. Its
// scripts write styles (Material UI), so styles have no hashes. Fonts from fonts.googleapis.com are refused: the page works without them,
// and no third party learns that an operator has opened it.
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

// withPolicy sets the headers that restrict what browsers do with an answer.
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

// sameOrigin rejects changes from another site's page.
func sameOrigin(pages auth.Pages, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages.Reject(w, r, http.StatusForbidden, "This came from another site's page: nothing was changed.")
	}))
	return protection.Handler(next)
}
