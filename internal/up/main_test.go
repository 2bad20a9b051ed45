package up

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childVariable makes the test binary behave like a process that `up` starts. Its value lists deviations, such as "worker:crash
// api:deaf".
const childVariable = "UP_TEST_CHILD"

func TestMain(m *testing.M) {
	if behaviour, isChild := os.LookupEnv(childVariable); isChild {
		os.Exit(runChild(os.Args[1], behaviour))
	}
	goleak.VerifyTestMain(m)
}

// runChild acts as a process that is ready at once and ends at SIGTERM, but for the deviations in behaviour.
func runChild(name, behaviour string) int {
	does := func(what string) bool { return strings.Contains(behaviour, name+":"+what) }
	say("pid", os.Getpid())
	if does("crash") {
		say("cannot go on")
		return 3
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	if does("deaf") {
		say("deaf")
		select {} // ignores the signal
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if does("unready") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/die", func(http.ResponseWriter, *http.Request) { os.Exit(4) })
	server := &http.Server{
		Addr: os.Getenv("AFTERWRITE_" + strings.ToUpper(name) + "_ADDR"), Handler: mux, ReadHeaderTimeout: time.Second,
	}
	go func() {
		say(server.ListenAndServe())
		os.Exit(1)
	}()
	<-told
	say("told to stop")
	return 0
}

func say(what ...any) { fmt.Fprintln(os.Stdout, what...) }
