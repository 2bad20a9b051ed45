package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"

	"github.com/afterwrite/afterwrite/internal/deadletter"
)

type deadDiscardCommand struct {
	Yes bool `help:"Do not ask."`

	Key string `arg:"" help:"The counter's key."`
}

// Run implements the command.
func (d deadDiscardCommand) Run(w *world) error {
	keys, err := parseKeys([]string{d.Key})
	if err != nil {
		return err
	}
	box, err := openDead(w)
	if err != nil {
		return err
	}
	defer box.close()
	letter, unread, err := box.Get(w.ctx, keys[0])
	if err != nil {
		return err
	}
	if unread != nil {
		return fmt.Errorf("postgres did not answer, so it is not known what to return to; nothing was discarded: %w", unread)
	}
	if err := say(w, "dropped, from redis:  %s\nkept, from postgres:  %s", letter.Redis, letter.Postgres); err != nil {
		return err
	}
	if err := d.confirm(w, os.Stdin); err != nil {
		return err
	}
	returned, err := box.Discard(w.ctx, letter)
	if err != nil {
		return err
	}
	return sayDiscarded(w, letter, returned)
}

// confirm returns nil when the operator agrees: by --yes, or in the terminal that in is.
func (d deadDiscardCommand) confirm(w *world, in *os.File) error {
	if d.Yes {
		return nil
	}
	if !isatty.IsTerminal(in.Fd()) {
		return errors.New("nothing was discarded: there is no terminal to ask in, so add --yes")
	}
	fmt.Fprintf(w.stderr, "Discard %s? Type yes: ", oneLine(d.Key))
	answer := make(chan error, 1)
	go func() { answer <- agreed(in) }() // a terminal cannot be told to stop reading: it ends with the process
	select {
	case err := <-answer:
		return err
	case <-w.ctx.Done():
		return errors.New("nothing was discarded: it was interrupted")
	}
}

// agreed returns nil when the next line of in is yes.
func agreed(in io.Reader) error {
	const longest = 1024 // bounds what is read of somebody else's file
	line, err := bufio.NewReader(io.LimitReader(in, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was discarded: the answer was not yes")
	}
	return nil
}

func sayDiscarded(w *world, letter deadletter.Letter, returned deadletter.Returned) error {
	err := say(w, "discarded: the counter is what postgres has: %s", returned.Now)
	if err == nil && returned.Refused != nil {
		err = say(w, "postgres refuses any new version of it (%s): writes to %s become dead letters again until that is mended",
			oneLine(returned.Refused.Error()), oneLine(string(letter.Key)))
	}
	if err == nil && returned.Written {
		err = say(w, "it was written again since: that is kept, and due for a flush")
	}
	return err
}
