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
	// restartPause is the wait before the restart of a process that ended by itself.
	restartPause = 500 * time.Millisecond

	// clock is the time format in the logs.
	clock = "15:04:05.000"
)

// process is a supervised process of afterwrite.
type process struct {
	*world.Process

	redis string // of an api: the address of the Redis protocol

	mu      sync.Mutex
	down    time.Duration // the wait before the restart after a kill
	crashes []string      // times and exit states of ends without a kill
}

// supervise restarts the process whenever it ends, until ctx is done.
func (p *process) supervise(ctx context.Context) {
	for {
		if !pause(ctx, p.ended(p.Ended(ctx))) {
			return
		}
		if err := p.Start(); err != nil {
			p.say(err.Error())
		}
	}
}

// ended records the end of the process, and returns the wait before its restart. how is nil after a kill.
func (p *process) ended(how *os.ProcessState) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if how == nil {
		return p.down
	}
	p.crashes = append(p.crashes, fmt.Sprintf("at %s: %s", time.Now().Format(clock), how))
	p.say(fmt.Sprintf("ended by itself: %s", how))
	return restartPause
}

// kill ends the process with SIGKILL. It is restarted after the given time. kill returns false if the process was not running.
func (p *process) kill(down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	if !p.Kill() {
		return false
	}
	p.say("killed")
	return true
}

// endings returns the times and exit states of ends without a kill.
func (p *process) endings() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.crashes)
}

// say appends a line to the process's log.
func (p *process) say(what string) {
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	fmt.Fprintf(log, "--- %s chaos: %s %s\n", time.Now().Format(clock), p.Name, what)
	_ = log.Close()
}
