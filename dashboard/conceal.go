package dashboard

import (
	"log/slog"
	"net/http"
)

// concealed is what visitors get instead of an error of Asynqmon's, which holds Redis's address.
const concealed = "Redis does not answer, or refused: the log of the dashboard process has the reason"

// conceal replaces the body of answers with a status of 500 and more, and logs what it was.
func conceal(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&concealer{ResponseWriter: w, log: log, path: r.URL.Path}, r)
	})
}

type concealer struct {
	http.ResponseWriter

	log    *slog.Logger
	path   string
	failed bool
}

// WriteHeader implements http.ResponseWriter.
func (c *concealer) WriteHeader(status int) {
	c.failed = status >= http.StatusInternalServerError
	c.ResponseWriter.WriteHeader(status)
	if c.failed {
		_, _ = c.ResponseWriter.Write([]byte(concealed)) // the visitor has gone
	}
}

// Write implements http.ResponseWriter.
func (c *concealer) Write(body []byte) (int, error) {
	if c.failed {
		c.log.Warn("asynqmon failed", "path", c.path, "error", string(body))
		return len(body), nil
	}
	return c.ResponseWriter.Write(body)
}
