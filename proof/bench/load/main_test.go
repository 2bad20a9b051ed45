package load_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// migrated creates the tables in the template of the test databases.
func migrated(url string) error { return store.MigrateURL(context.Background(), url) }

// target is a server that counts the requests by method and path.
type target struct {
	*httptest.Server

	mu    sync.Mutex
	paths map[string]int
}

// newTarget starts a server that answers with handle, or with {} if handle is nil.
func newTarget(t *testing.T, handle http.HandlerFunc) *target {
	t.Helper()
	s := &target{paths: make(map[string]int)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths[r.Method+" "+r.URL.Path]++
		s.mu.Unlock()
		if handle != nil {
			handle(w, r)
			return
		}
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(s.Close)
	return s
}

// requests counts the requests whose method and path begin with prefix. It returns their sum, and the counts by path, the highest first.
func (s *target) requests(prefix string) (sum int, counts []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, n := range s.paths {
		if strings.HasPrefix(path, prefix) {
			sum += n
			counts = append(counts, n)
		}
	}
	slices.Sort(counts)
	slices.Reverse(counts)
	return sum, counts
}

const incrementPath = "POST /v1/counters/counter:000000"
