package command

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// healthcheckTimeout is under the usual time-out of container health checks, so that the reason is printed.
const healthcheckTimeout = 3 * time.Second

type healthcheckCommand struct {
	URL string `arg:"" help:"What to ask, for example http://127.0.0.1:8080/readyz."`
}

// Run implements the command.
func (h healthcheckCommand) Run(w *world) error {
	ctx, cancel := context.WithTimeout(w.ctx, healthcheckTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, http.NoBody)
	if err != nil {
		return fmt.Errorf("the URL cannot be used: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("not healthy: %s answered %s", h.URL, response.Status)
	}
	return nil
}
