package up

import (
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

func load(t *testing.T, environment map[string]string) config.Config {
	t.Helper()
	c, err := config.FromMap(environment)
	require.NoError(t, err)
	return c
}

func TestErrorForAPortInUseNamesTheVariable(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	all := addresses(freePorts(t))
	all[2].addr = taken.Addr().String()

	require.EqualError(t, checkFree(all), "cannot listen on "+taken.Addr().String()+
		": the port is in use: stop the program that uses it, or set AFTERWRITE_SCHEDULER_ADDR to another address")
}

func TestErrorForTheSameAddressNamesBothVariables(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0") // the port is also taken, but the error is about the variables
	require.NoError(t, err)
	defer taken.Close()
	all := addresses(freePorts(t))
	all[0].addr, all[3].addr = taken.Addr().String(), taken.Addr().String()

	err = checkFree(all)

	require.EqualError(t, err, "AFTERWRITE_API_ADDR and AFTERWRITE_DASHBOARD_ADDR must differ; both are "+all[0].addr)
}

func TestPort0IsReplacedByAFreePort(t *testing.T) {
	t.Parallel()
	all := addresses(freePorts(t))

	require.NoError(t, checkFree(all))

	for _, p := range all {
		_, port, err := net.SplitHostPort(p.addr)
		require.NoError(t, err)
		require.NotEqual(t, "0", port)
	}
}

func TestPORTAppliesToTheAPIOnly(t *testing.T) {
	t.Parallel()
	all := addresses(load(t, map[string]string{"PORT": "9999"}))

	require.Equal(t, address{process: "api", variable: "PORT", addr: "0.0.0.0:9999"}, all[0])
	require.Equal(t, "http://127.0.0.1:9999", all[0].url())
	require.Equal(t, "127.0.0.1:8082", all[1].addr)
}

func TestChildrenGetTheChosenAddressesInsteadOfPORT(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{"PORT": "9999", "REDIS_URL": "redis://here", "DATABASE_URL": "postgres://here"})

	env := childEnv([]string{"PATH=/bin", "PORT=9999", "AFTERWRITE_API_ADDR=other:1", "REDIS_URL=", "ODD", "AFTERWRITE_TYPO=1"},
		c, addresses(c))
	slices.Sort(env)

	require.Equal(t, []string{
		"AFTERWRITE_API_ADDR=0.0.0.0:9999", "AFTERWRITE_DASHBOARD_ADDR=127.0.0.1:8081",
		"AFTERWRITE_RESP_ADDR=127.0.0.1:6380", "AFTERWRITE_SCHEDULER_ADDR=127.0.0.1:8083", "AFTERWRITE_WORKER_ADDR=127.0.0.1:8082",
		"DATABASE_URL=postgres://here", "ODD", "PATH=/bin", "REDIS_URL=redis://here",
	}, env)
}

// freePorts returns a configuration with ports that the system chooses.
func freePorts(t *testing.T) config.Config {
	t.Helper()
	return load(t, map[string]string{
		"AFTERWRITE_API_ADDR": "127.0.0.1:0", "AFTERWRITE_WORKER_ADDR": "127.0.0.1:0",
		"AFTERWRITE_SCHEDULER_ADDR": "127.0.0.1:0", "AFTERWRITE_DASHBOARD_ADDR": "127.0.0.1:0", "AFTERWRITE_RESP_ADDR": "127.0.0.1:0",
		"REDIS_URL": "redis://unused", "DATABASE_URL": "postgres://unused",
	})
}
