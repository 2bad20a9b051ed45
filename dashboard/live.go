package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/health"
)

const (
	// maxViewers bounds the streams of one process, at about 30 kB each. Further viewers get the page without live updates.
	maxViewers = 256

	// sendTimeout bounds the wait for a viewer that does not read. Then the stream ends.
	sendTimeout = 10 * time.Second

	// streamFor bounds a stream. The browser then opens another one, whose session is checked again. A stream also ends with its session,
	// unless another dashboard process ended the session.
	streamFor = 10 * time.Minute

	// reopenAfter is the pause before browsers open the next stream, in ms. Their default is several seconds.
	reopenAfter = 1000

	// retryAfter is the Retry-After for viewers beyond maxViewers, in seconds.
	retryAfter = "15"
)

// livePage is a page with parts that change each second.
type livePage interface {
	// data returns the data of the page's templates.
	data(f *frame) any
	// parts returns the names of the templates that are rendered for each frame. live.js replaces the element whose data-part is the name.
	parts() []string
	// part renders one of these templates.
	part(name string, data any) (string, error)
}

// live streams frames to viewers as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type live struct {
	watch *watch
	pages map[string]livePage
	slots chan struct{}   // one for each open stream
	ended <-chan struct{} // closed when the process ends
}

// message is the data of an event.
type message struct {
	Parts  json.RawMessage `json:"parts"`
	Now    int64           `json:"now"`
	Points []health.Sample `json:"points"` // samples since the last event
}

// ServeHTTP streams the page named by the query's page. The query also has every, the seconds between two events (1, 5 or 15), and since,
// the time of the viewer's last sample.
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	name := query.Get("page")
	page, ok := l.pages[name]
	every, _ := strconv.Atoi(query.Get("every")) // 0 is rejected below
	since, _ := strconv.ParseInt(query.Get("since"), 10, 64)
	if !ok || !slices.Contains([]int{1, 5, 15}, every) {
		http.Error(w, "no such stream: page must be overview, shards, requests or mappings, and every must be 1, 5 or 15",
			http.StatusBadRequest)
		return
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	default:
		w.Header().Set("Retry-After", retryAfter)
		http.Error(w, fmt.Sprintf("all %d live streams are in use: load the page again for new numbers", maxViewers),
			http.StatusServiceUnavailable)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // else nginx buffers the events
	s := stream{live: l, name: name, page: page, since: since, every: time.Duration(every) * time.Second}
	s.run(w, r)
}

// stream is one viewer.
type stream struct {
	*live

	name  string
	page  livePage
	since int64
	every time.Duration
}

func (s *stream) run(w http.ResponseWriter, r *http.Request) {
	over := time.NewTimer(streamFor)
	defer over.Stop()
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	_, _ = fmt.Fprintf(w, "retry: %d\n\n", reopenAfter) // a disconnected viewer is noticed below
	for {
		frame, next := s.watch.latest()
		if err := s.send(w, frame); err != nil {
			return // the viewer has disconnected, or does not read
		}
		tick := ticker.C
		if s.every <= health.SampleEvery {
			tick = nil // each frame
		}
		if !s.wait(r, over.C, tick, next) {
			return
		}
	}
}

// wait returns true when an event is due: at the next tick or, without a ticker, with the next frame. It returns false at the end of the
// stream.
func (s *stream) wait(r *http.Request, over, tick <-chan time.Time, next <-chan struct{}) bool {
	if tick != nil {
		next = nil
	}
	select {
	case <-r.Context().Done():
		return false
	case <-auth.Of(r).Ended:
		return false
	case <-s.ended:
		return false
	case <-over:
		return false
	case <-tick:
		return true
	case <-next:
		return true
	}
}

func (s *stream) send(w http.ResponseWriter, f *frame) error {
	parts, err := f.rendered(s.name, s.page)
	if err != nil {
		return err
	}
	if f.At > 0 && f.At < s.since { // the clock was set back: the viewer drops later samples, and needs the history again
		s.since = 0
	}
	m := message{Parts: parts, Now: f.At, Points: f.since(s.since)}
	s.since = max(s.since, f.At)
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(sendTimeout)) // fails only with a test's ResponseWriter
	if _, err := fmt.Fprintf(w, "event: frame\ndata: %s\n\n", text); err != nil {
		return err
	}
	return control.Flush()
}

// since returns the samples after the given time.
func (f *frame) since(at int64) []health.Sample {
	i, _ := slices.BinarySearchFunc(f.History, at+1, func(s health.Sample, t int64) int { return int(s.At - t) })
	return f.History[i:]
}

// rendered returns the page's parts as JSON, {"name":"HTML"}. They are rendered once for all viewers.
func (f *frame) rendered(name string, p livePage) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if parts, ok := f.parts[name]; ok {
		return parts, nil
	}
	data := p.data(f)
	texts := make(map[string]string)
	for _, part := range p.parts() {
		text, err := p.part(part, data)
		if err != nil {
			return nil, err
		}
		texts[part] = text
	}
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(texts); err != nil {
		return nil, fmt.Errorf("encode parts: %w", err)
	}
	if f.parts == nil {
		f.parts = make(map[string][]byte)
	}
	f.parts[name] = bytes.TrimSpace(body.Bytes())
	return f.parts[name], nil
}
