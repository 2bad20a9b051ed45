package resp_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
)

func TestParserFindsTheSameCommandsHoweverTheInputArrives(t *testing.T) {
	t.Parallel()
	input := []byte(encode("SET", "a", "") + "*0\r\n\r\nPING\r\n*-1\r\n  get  \"a b\\x41\\n\" 'c\\'d'\n" + encode("ECHO", "\r\n$5\r\n"))
	want := [][]string{{"SET", "a", ""}, {"PING"}, {"get", "a bA\n", "c'd"}, {"ECHO", "\r\n$5\r\n"}}
	for _, pieces := range [][]int{{1 << 20}, {1}, {2}, {3, 1, 7}, {5}} {
		commands, err := resp.Parse(input, pieces...)
		require.NoError(t, err)
		require.Equal(t, want, commands)
	}
}

func TestParserTakesTheLargestCommand(t *testing.T) {
	t.Parallel()
	words := make([]string, resp.MaxArguments)
	for i := range words {
		words[i] = strings.Repeat("x", 120)
	}
	words[0] = strings.Repeat("x", resp.MaxArgumentBytes)
	for _, piece := range []int{1 << 20, 1000} {
		commands, err := resp.Parse([]byte(encode("PING")+encode(words...)+encode("PING")), piece)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"PING"}, words, {"PING"}}, commands)
	}
}

// FuzzParser finds input that is parsed differently in pieces.
func FuzzParser(f *testing.F) {
	for _, seed := range []string{
		"", "PING\r\n", encode("INCRBY", "a", "1") + encode("GET", "a"), "*1\r\n$-2\r\n", "*1\r\n$9223372036854775807\r\nabc\r\n",
		"*1000000000\r\n", "*2\r\n$3\r\nGET\r\n$1\r\n", "\"a\\x4", "'a", "*1\n$1\na\n", "*1\r\n$1\r\nab\r\n", "$5\r\nhello\r\n", "*0\r\n", "\x00\xff\n",
	} {
		f.Add([]byte(seed), uint8(1), uint8(7))
	}
	f.Fuzz(func(t *testing.T, input []byte, first, second uint8) {
		whole, wholeErr := resp.Parse(input, len(input)+1)
		pieces, piecesErr := resp.Parse(input, int(first), int(second))
		require.Equal(t, whole, pieces)
		require.Equal(t, wholeErr, piecesErr)
		for _, command := range whole {
			require.LessOrEqual(t, len(command), resp.MaxArguments)
		}
	})
}
