package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

type deadRedriveCommand struct {
	All     bool          `help:"Redrive every dead letter."`
	Wait    bool          `help:"Wait until each is in Postgres or dead again, and report which."`
	Timeout time.Duration `default:"30s"                                                          help:"How long --wait waits at most."`

	Keys []string `arg:"" help:"The counters' keys." name:"key" optional:""`
}

// maxWait bounds --timeout.
const maxWait = time.Hour

// Validate implements kong's check of a command line.
func (d deadRedriveCommand) Validate() error {
	switch {
	case d.All && len(d.Keys) > 0:
		return errors.New("name keys or use --all, not both")
	case !d.All && len(d.Keys) == 0:
		return errors.New("name the keys to redrive, or use --all")
	case d.Timeout <= 0 || d.Timeout > maxWait:
		return fmt.Errorf("--timeout must be above 0 and at most %[2]s; it is %[1]s", d.Timeout, maxWait)
	}
	return nil
}

// Run implements the command.
func (d deadRedriveCommand) Run(w *world) error {
	o, named, err := openDead(w, d.Keys...)
	if err != nil {
		return err
	}
	defer o.close()

	redriven, notDead, err := d.redrive(w, o, named)
	if len(redriven) > 0 || err == nil {
		if sayErr := sayRedriven(w, o, redriven); sayErr != nil {
			return sayErr
		}
	}
	if err != nil {
		return fmt.Errorf("%w: what is left is still dead; run it again", err)
	}
	if d.Wait {
		err = awaitRedriven(w, o, redriven, d.Timeout)
	}
	return errors.Join(notDeadError(notDead), err)
}

func (d deadRedriveCommand) redrive(w *world, o *operator, named []counter.Key) (redriven, notDead []counter.Key, err error) {
	if d.All {
		redriven, err = o.RedriveAll(w.ctx)
		return redriven, nil, err
	}
	done, err := o.Redrive(w.ctx, named)
	return done.Keys, done.NotDead, err
}

// sayRedriven reports how many were redriven, and whether a worker is running.
func sayRedriven(w *world, o *operator, redriven []counter.Key) error {
	if len(redriven) == 0 {
		return say(w, "redriven: none")
	}
	workers, err := o.Workers()
	if err != nil {
		return err
	}
	if workers == 0 {
		return say(w, "redriven: %d, but no worker is running: start one with `afterwrite worker`; until then they wait", len(redriven))
	}
	return say(w, "redriven: %d; a worker that is running flushes them now", len(redriven))
}

// awaitRedriven waits for keys, and reports their outcomes. It returns an error unless all are in Postgres.
func awaitRedriven(w *world, o *operator, keys []counter.Key, bound time.Duration) error {
	if len(keys) == 0 {
		return nil
	}
	outcome, err := o.Await(w.ctx, keys, bound)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		what string
		keys []counter.Key
	}{{"in postgres", outcome.Clean}, {"dead again", outcome.Dead}, {"still waiting", outcome.Waiting}} {
		if len(part.keys) == 0 {
			continue
		}
		if err := say(w, "%s: %d: %s", part.what, len(part.keys), named(part.keys)); err != nil {
			return err
		}
	}
	if len(outcome.Dead) > 0 {
		return fmt.Errorf("refused again: %d of %d: `afterwrite dead show` says why", len(outcome.Dead), len(keys))
	}
	if len(outcome.Waiting) > 0 {
		return fmt.Errorf("not in postgres after %[3]s: %[1]d of %[2]d: is a worker running, and postgres up? One that is refused is "+
			"tried for some minutes before it is dead again: see the worker's log", len(outcome.Waiting), len(keys), bound)
	}
	return nil
}

// notDeadError names the given keys that are not dead; nil without any.
func notDeadError(keys []counter.Key) error {
	if len(keys) == 0 {
		return nil
	}
	return fmt.Errorf("not dead, so unchanged: %s: `afterwrite dead list` shows the dead ones", named(keys))
}
