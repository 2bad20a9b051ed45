package up

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLinesBeginWithTheirProcess(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := newConsole(&out)
	api, scheduler := c.stream("api"), c.stream("scheduler")

	_, err := api.Write([]byte("one\ntw"))
	require.NoError(t, err)
	_, err = scheduler.Write([]byte("three\r\n"))
	require.NoError(t, err)
	_, err = api.Write([]byte("o\nlast"))
	require.NoError(t, err)
	require.NoError(t, api.Close())

	require.Equal(t, "api       | one\nscheduler | three\napi       | two\napi       | last\n", out.String())
}

func TestLongLinesAreSplit(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newConsole(&out).stream("api")

	_, err := s.Write([]byte(strings.Repeat("a", 2*maxLine+1) + "\nb\n"))
	require.NoError(t, err)

	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, lines, 4)
	require.Len(t, lines[0], maxLine+len("api       | "))
	require.Equal(t, "api       | a", lines[2])
	require.Equal(t, "api       | b", lines[3])
}

func TestNamesAreColouredOnlyOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := newConsole(&out)
	require.False(t, c.colour)

	c.colour = true
	c.stream("api").sayf("ready")

	require.Equal(t, "\x1b[36mapi       | \x1b[0mready\n", out.String())
}
