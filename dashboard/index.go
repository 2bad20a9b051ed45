package dashboard

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// sampleTimeout bounds the wait for Redis when somebody opens the page.
const sampleTimeout = 2 * time.Second

var (
	//go:embed index.html style.css
	files embed.FS

	indexTemplate = template.Must(template.New("index.html").
			Funcs(template.FuncMap{"number": number, "age": age}).
			ParseFS(files, "index.html"))
)

// indexPage is /.
type indexPage struct {
	sampler Sampler
	write   bool
	log     *slog.Logger
}

// indexData is what index.html shows.
type indexData struct {
	Backlog   *cache.Backlog // nil: Redis does not answer
	AsynqPath string
	Write     bool
	At        string
}

// ServeHTTP answers with 503 when Redis does not answer: the page itself is shown, and says so.
func (p *indexPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := indexData{AsynqPath: asynqPath, Write: p.write, At: time.Now().UTC().Format(time.DateTime)}
	status := http.StatusOK
	backlog, err := p.sample(r.Context())
	if err != nil {
		// The reason holds Redis's address: it is for the log.
		p.log.Warn("the backlog cannot be read", "error", err)
		status = http.StatusServiceUnavailable
	} else {
		data.Backlog = &backlog
	}

	var body bytes.Buffer
	if err := indexTemplate.Execute(&body, data); err != nil {
		p.log.Error("the index page cannot be made", "error", err)
		http.Error(w, "internal error: see the log of the dashboard process", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the visitor has gone
}

func (p *indexPage) sample(ctx context.Context) (cache.Backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	return p.sampler.Backlog(ctx)
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// age writes a duration in the precision that matters: 0.4 s, 12 s, 5m10s.
func age(d time.Duration) string {
	switch {
	case d <= 0:
		return "0 s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 0, 64) + " s"
	default:
		return d.Round(time.Second).String()
	}
}
