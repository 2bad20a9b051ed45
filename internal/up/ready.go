package up

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	// readyPatience bounds the start of the processes; it is longer than they themselves wait for Redis.
	readyPatience = 45 * time.Second
	readyEvery    = 50 * time.Millisecond
	readyTimeout  = 2 * time.Second // of one question; the answer takes a second at most
)

// awaitReady asks every process's /readyz until all have said yes. A process that ends instead is an error at once.
func (u *up) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	client := &http.Client{Timeout: readyTimeout, Transport: &http.Transport{DisableKeepAlives: true}}

	for _, place := range u.places {
		for !isReady(ctx, client, place.url()+"/readyz") {
			select {
			case <-u.processes[place.process].done:
				return u.processes[place.process].unexpected()
			case <-ctx.Done():
				return fmt.Errorf("the %s is not ready after %s: its last lines are above", place.process, readyPatience)
			case <-time.After(readyEvery):
			}
		}
	}
	return nil
}

func isReady(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
