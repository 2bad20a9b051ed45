package dashboard

import (
	"context"
	"net/http"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// sampleTimeout bounds the wait for Redis when somebody opens the page.
const sampleTimeout = 2 * time.Second

// overviewPage is /.
type overviewPage struct {
	*page

	sampler Sampler
	write   bool
}

// overviewData is what overview.html shows.
type overviewData struct {
	Backlog   *cache.Backlog // nil: Redis does not answer
	AsynqPath string
	Write     bool
	At        string
}

// ServeHTTP answers with 503 when Redis does not answer: the page itself is shown, and says so.
func (p *overviewPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := overviewData{AsynqPath: asynqPath, Write: p.write, At: time.Now().UTC().Format(time.DateTime)}
	status := http.StatusOK
	backlog, err := p.sample(r.Context())
	if err != nil {
		// The reason holds Redis's address: it is for the log.
		p.shared.log.Warn("the backlog cannot be read", "error", err)
		status = http.StatusServiceUnavailable
	} else {
		data.Backlog = &backlog
	}
	p.render(w, r, status, data)
}

func (p *overviewPage) sample(ctx context.Context) (cache.Backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	return p.sampler.Backlog(ctx)
}
