package cache

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// reply is an error that a server has answered with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

// Only a refusal says that nothing has been applied. After any other error an increment might count twice.
func TestOnlyRefusedCallsAreSentAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		again bool
	}{
		"moved":                        {reply("MOVED 3999 127.0.0.1:6381"), true},
		"the answer was lost":          {io.EOF, false},
		"a time-out":                   {os.ErrDeadlineExceeded, false},
		"a reset":                      {&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, false},
		"not connected":                {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, false},
		"the caller has left":          {context.Canceled, false},
		"the cluster is down":          {reply("CLUSTERDOWN The cluster is down"), false},
		"a slot that moves":            {reply("TRYAGAIN Multiple keys request during rehashing of slot"), false},
		"full":                         {reply("OOM command not allowed"), false},
		"a text that mentions a move":  {reply("ERR Error running script: no MOVED here"), false},
		"a script that failed halfway": {reply("ERR user_script:1: attempt to index a nil value"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			renewed, sent := 0, 0
			hook := resendHook{refused: "MOVED", renew: func(context.Context) { renewed++ }}
			cmd := redis.NewCmd(t.Context(), "evalsha")
			send := hook.ProcessHook(func(context.Context, redis.Cmder) error {
				sent++
				if sent == 1 {
					return test.err
				}
				return nil
			})
			err := send(t.Context(), cmd)
			if test.again {
				require.NoError(t, err)
				require.Equal(t, []int{2, 1}, []int{sent, renewed})
				return
			}
			require.Equal(t, test.err, err)
			require.Equal(t, []int{1, 0}, []int{sent, renewed})
		})
	}
}

// A pipeline has an answer for each command: those that were applied must not be sent again.
func TestOnlyTheRefusedCommandsOfAPipelineAreSentAgain(t *testing.T) {
	t.Parallel()
	moved := reply("MOVED 3999 127.0.0.1:6381")
	hook := resendHook{refused: "MOVED", renew: func(context.Context) {}}
	applied, refused, lost := redis.NewCmd(t.Context(), "a"), redis.NewCmd(t.Context(), "b"), redis.NewCmd(t.Context(), "c")
	calls := make(map[redis.Cmder]int)
	send := hook.ProcessPipelineHook(func(_ context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			calls[cmd]++
		}
		switch {
		case calls[refused] < 3:
			refused.SetErr(moved)
		default:
			refused.SetErr(nil)
		}
		lost.SetErr(io.EOF)
		return firstError(cmds)
	})

	require.ErrorIs(t, send(t.Context(), []redis.Cmder{applied, refused, lost}), io.EOF)
	require.Equal(t, map[redis.Cmder]int{applied: 1, refused: 3, lost: 1}, calls)

	tries := 0
	never := hook.ProcessHook(func(context.Context, redis.Cmder) error { tries++; return moved })
	require.Equal(t, error(moved), never(t.Context(), applied))
	require.Equal(t, 1+maxResends, tries, "bounded")
}
