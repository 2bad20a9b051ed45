package command

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const patience = 60 * time.Second

// running is the program as a process of its own.
type running struct {
	cmd  *exec.Cmd
	out  *localtest.Buffer // stdout and stderr
	text *localtest.Buffer // stdout
	errs *localtest.Buffer // stderr
	done chan struct{}
}

// start runs the program with nothing in its environment but PATH and env. It is killed with the test.
func start(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	p := &running{
		cmd: exec.Command(program, args...), done: make(chan struct{}),
		out: new(localtest.Buffer), text: new(localtest.Buffer), errs: new(localtest.Buffer),
	}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), programVariable + "=1"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = io.MultiWriter(p.out, p.text), io.MultiWriter(p.out, p.errs)
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("--- %v said:\n%s", args, p.out)
		}
	})
	return p
}

// end waits for the end of the process and returns its exit status; -1 when a signal ended it.
func (p *running) end(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.Fail(t, "the process does not end", p.out.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop tells the process to stop, and checks that it does so without an error.
func (p *running) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, exitOK, p.end(t), p.out.String())
}

// find waits until the process has printed what matches, and returns its first group.
func (p *running) find(t *testing.T, pattern string) string {
	t.Helper()
	matcher := regexp.MustCompile(pattern)
	var found []string
	localtest.Eventually(t, patience, func() (bool, string) {
		found = matcher.FindStringSubmatch(p.out.String())
		select {
		case <-p.done:
			require.NotNil(t, found, "it ended without printing %q:\n%s", pattern, p.out)
		default:
		}
		return found != nil, pattern + " in\n" + p.out.String()
	})
	return found[1]
}

// oneLine checks that the process has failed with nothing but one line, and returns it.
func (p *running) oneLine(t *testing.T) string {
	t.Helper()
	require.Equal(t, exitFailure, p.end(t))
	text := p.errs.String()
	require.Regexp(t, `^(time=.*\n)*afterwrite: [^\n]+\n$`, text)
	return text
}

// get asks for a page until there is an answer.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	localtest.Eventually(t, patience, func() (bool, string) {
		response, err := client.Get(url)
		if err != nil {
			return false, err.Error()
		}
		defer response.Body.Close()
		var text bytes.Buffer
		_, err = text.ReadFrom(response.Body)
		require.NoError(t, err)
		status, body = response.StatusCode, text.String()
		return true, ""
	})
	return status, body
}
