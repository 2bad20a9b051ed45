package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/afterwrite/afterwrite/dashboard/auth"
)

type hashPasswordCommand struct {
	Role string `default:"viewer" enum:"viewer,operator" help:"viewer reads; operator also acts."`

	Name string `arg:"" help:"The user's name."`
}

// Run implements the command.
func (h hashPasswordCommand) Run(w *world) error {
	if err := auth.CheckName(h.Name); err != nil {
		return err
	}
	password, err := readPassword(w, os.Stdin)
	if err != nil {
		return err
	}
	hash, err := auth.HashPassword(password)
	if err != nil {
		return err
	}
	return say(w, "%s:%s:%s", h.Name, h.Role, hash)
}

// readPassword asks twice in a terminal, without echo. Otherwise it reads the first line.
func readPassword(w *world, in *os.File) (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return firstLine(in)
	}
	var typed [2]string
	for i, question := range []string{"Password: ", "Once more: "} {
		fmt.Fprint(w.stderr, question)
		line, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(w.stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(line)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ")
	}
	return typed[0], nil
}

func firstLine(in io.Reader) (string, error) {
	const longest = 1024 // far above the longest password
	line, err := bufio.NewReader(io.LimitReader(in, longest)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
