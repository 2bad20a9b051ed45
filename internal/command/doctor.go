package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

type doctorCommand struct {
	JSON bool `help:"Print the findings as JSON." name:"json"`
}

// Run implements the command.
func (d doctorCommand) Run(w *world) error {
	pools := oneByOne
	pools.Reads = true
	s, err := w.connect("doctor", pools)
	if err != nil {
		return err
	}
	defer s.Close()
	_ = s.ChooseShards(w.ctx) // if Redis does not answer, the checks report it
	findings := s.Checks().Run(w.ctx)
	if d.JSON {
		err = printJSON(w.stdout, findings)
	} else {
		err = process.Print(w.stdout, findings)
	}
	if err != nil {
		return err
	}
	if process.Worst(findings) == process.Refused {
		return errors.New("something is refused: see above")
	}
	return nil
}

// healthcheckTimeout is shorter than the usual timeout of container health checks, so that the reason is printed.
const healthcheckTimeout = 3 * time.Second

type healthcheckCommand struct {
	URL string `arg:"" help:"The URL to request, for example http://127.0.0.1:8080/readyz."`
}

// Run implements the command.
func (h healthcheckCommand) Run(w *world) error {
	ctx, cancel := context.WithTimeout(w.ctx, healthcheckTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, http.NoBody)
	if err != nil {
		return fmt.Errorf("invalid URL: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if config.LoopbackName(request.URL.Hostname()) {
		// The certificate has the name that clients use. Nothing is sent that has to be protected.
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // to this machine only
	}
	client := &http.Client{Transport: transport}
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
