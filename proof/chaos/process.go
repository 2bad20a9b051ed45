package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// restartPause is the wait before a process that ended by itself is started again, as a supervisor does.
	restartPause = 500 * time.Millisecond

	// clock is the format of times in the logs.
	clock = "15:04:05.000"
)

// process is a process of afterwrite that is started again whenever it ends.
type process struct {
	*world.Process

	mu      sync.Mutex
	down    time.Duration // how long it stays down after it was killed
	unasked []string      // how it ended when nobody had killed it
}

// supervise starts the process again whenever it ends, until ctx is done.
func (p *process) supervise(ctx context.Context) {
	for {
		how := p.Ended(ctx)
		if !pause(ctx, p.ended(how)) {
			return
		}
		if err := p.Start(); err != nil {
			p.say(err.Error())
		}
	}
}

// ended records the end of the process, and returns how long it stays down.
func (p *process) ended(how *os.ProcessState) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if how == nil {
		return p.down
	}
	p.unasked = append(p.unasked, fmt.Sprintf("at %s: %s", time.Now().Format(clock), how))
	p.say(fmt.Sprintf("ended by itself: %s", how))
	return restartPause
}

// kill ends the process as a crash would, to be started again after some time. It reports false when it is down already.
func (p *process) kill(down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	if !p.Kill() {
		return false
	}
	p.say("was killed")
	return true
}

// endings tell how the process ended when nobody had killed it.
func (p *process) endings() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.unasked)
}

// say writes a line of our own into the process's log.
func (p *process) say(what string) {
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	fmt.Fprintf(log, "--- %s chaos: %s %s\n", time.Now().Format(clock), p.Name, what)
	_ = log.Close()
}
