package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

type deadDiscardCommand struct {
	Yes bool `help:"Do not ask."`

	Key string `arg:"" help:"The counter's key."`
}

// Run implements the command.
func (d deadDiscardCommand) Run(w *world) error {
	o, keys, err := openDead(w, d.Key)
	if err != nil {
		return err
	}
	defer o.close()
	dead, err := o.Get(w.ctx, keys[0])
	if err == nil {
		err = dead.Discardable()
	}
	if err != nil {
		return err
	}
	if err := say(w, "dropped, from redis:  %s\nkept, from postgres:  %s", dead.Redis, dead.Postgres); err != nil {
		return err
	}
	if err := d.confirm(w, os.Stdin); err != nil {
		return err
	}
	done, err := o.Discard(w.ctx, dead)
	if err != nil {
		return err
	}
	return sayDiscarded(w, dead.Key, done)
}

// confirm returns nil if the operator agrees, by --yes or in the terminal in.
func (d deadDiscardCommand) confirm(w *world, in *os.File) error {
	if d.Yes {
		return nil
	}
	if !isatty.IsTerminal(in.Fd()) {
		return errors.New("nothing was discarded: there is no terminal to ask in, so add --yes")
	}
	fmt.Fprintf(w.stderr, "Discard %s? Type yes: ", oneLine(d.Key))
	answer := make(chan error, 1)
	go func() { answer <- agreed(in) }() // a read from a terminal cannot be canceled, so it ends with the process
	select {
	case err := <-answer:
		return err
	case <-w.ctx.Done():
		return errors.New("nothing was discarded: it was interrupted")
	}
}

// agreed returns nil if the next line of in is yes.
func agreed(in io.Reader) error {
	const longest = 1024 // bounds the input if in is a file
	line, err := bufio.NewReader(io.LimitReader(in, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was discarded: the answer was not yes")
	}
	return nil
}

func sayDiscarded(w *world, key counter.Key, done operate.Discarded) error {
	err := say(w, "discarded: the counter has postgres's state: %s", done.Now)
	if err == nil && done.Refused != nil {
		err = say(w, "postgres refuses any new version of it (%s): writes to %s become dead letters again until that is repaired",
			oneLine(done.Refused.Error()), oneLine(string(key)))
	}
	if err == nil && done.Written {
		err = say(w, "it was written again since: that is kept, and due for a flush")
	}
	return err
}
