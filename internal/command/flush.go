package command

import (
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
)

type flushCommand struct {
	Wait    bool          `help:"Wait until Postgres has all writes from before the command."`
	Timeout time.Duration `default:"30s"                                                      help:"How long --wait waits at most."`

	Keys []string `arg:"" help:"The counters' keys; all of them without any." name:"key" optional:""`
}

// Validate implements kong's check of a command line.
func (f flushCommand) Validate() error {
	if f.Timeout <= 0 || f.Timeout > maxWait {
		return fmt.Errorf("--timeout must be above 0 and at most %[2]s; it is %[1]s", f.Timeout, maxWait)
	}
	if len(f.Keys) > operate.MaxFlushKeys {
		return fmt.Errorf("there are %d keys, but the limit is %d", len(f.Keys), operate.MaxFlushKeys)
	}
	return nil
}

// Run implements the command.
func (f flushCommand) Run(w *world) error {
	keys, err := parseKeys(f.Keys...)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		keys = nil // all
	}
	o, err := openOperator(w, "flush", process.Pools{Redis: oneByOne.Redis})
	if err != nil {
		return err
	}
	defer o.close()
	bound := time.Duration(0)
	if f.Wait {
		bound = f.Timeout
	}
	ask := o.Flush
	if keys != nil {
		ask = o.FlushAside // the operator may have removed the cause
	}
	left, err := ask(w.ctx, keys, bound)
	if err != nil {
		return err
	}
	return f.say(w, left)
}

// say reports what is left. With --wait, it returns an error if something is.
func (f flushCommand) say(w *world, left operate.Left) error {
	if left.Dead > 0 {
		err := say(w, "dead letters: %d: Postgres refused them, a flush does not write them; see `afterwrite dead list`", left.Dead)
		if err != nil {
			return err
		}
	}
	if left.Dirty == 0 {
		return say(w, "dirty: 0: Postgres has everything else that was written before")
	}
	if err := say(w, "dirty: %d, %d of them waiting for a retry", left.Dirty, left.Retrying); err != nil {
		return err
	}
	if f.Wait {
		return fmt.Errorf("not in postgres after %s: %d: is a worker running, and postgres up?", f.Timeout, left.Dirty)
	}
	return nil
}
