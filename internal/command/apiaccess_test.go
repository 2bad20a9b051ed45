package command

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// keyLine returns the line of the settings for a key.
func keyLine(name, key, rest string) string {
	sum := sha256.Sum256([]byte(key))
	return name + ":" + hex.EncodeToString(sum[:]) + ":" + rest
}

// withKey sends a request with an API key, and returns the status.
func withKey(t *testing.T, client *http.Client, method, url, key string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := client.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

func TestTheAPIRefusesToBeOpenToOthers(t *testing.T) {
	t.Parallel()
	port, err := local.FreePort()
	require.NoError(t, err)
	env := append(servers(t), "PORT="+strconv.Itoa(port))
	for _, settings := range [][]string{nil, {"AFTERWRITE_ADMIN_TOKEN=sixteen-letters-"}, {"AFTERWRITE_API_OPEN=false"}} {
		line := start(t, append(env, settings...), "api").oneLine(t)
		require.Contains(t, line, "refusing to start: everybody who can reach 0.0.0.0:"+strconv.Itoa(port))
		require.Contains(t, line, "set AFTERWRITE_API_KEYS, or set AFTERWRITE_API_OPEN=true")
	}
	for _, setting := range []string{"AFTERWRITE_API_OPEN=true", "AFTERWRITE_API_KEYS=" + keyLine("web", "secret", "read+write")} {
		p := start(t, append(env, setting), "api")
		status, _ := get(t, p.url(t)+"/readyz")
		require.Equal(t, http.StatusOK, status)
		want := http.StatusOK
		if strings.HasPrefix(setting, "AFTERWRITE_API_KEYS") {
			want = http.StatusUnauthorized
		}
		require.Equal(t, want, withKey(t, http.DefaultClient, http.MethodPost, p.url(t)+"/v1/counters/a/increment", ""), setting)
		require.Equal(t, http.StatusOK, withKey(t, http.DefaultClient, http.MethodPost, p.url(t)+"/v1/counters/a/increment", "secret"), setting)
		p.stop(t)
	}
}

func TestTheAPISpeaksTheRedisProtocolWithItsKeys(t *testing.T) {
	t.Parallel()
	env := servers(t)
	require.Equal(t, exitOK, start(t, env, "migrate").end(t))
	line := start(t, append(env, "AFTERWRITE_RESP_ADDR=0.0.0.0:0"), "api").oneLine(t)
	require.Contains(t, line, "refusing to start: everybody who can reach 0.0.0.0:0")

	p := start(t, append(env, "AFTERWRITE_API_KEYS="+keyLine("web", "secret", "read+write")), "api")
	addr := p.find(t, `Redis protocol" process=api at=(\S+)`)
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	require.ErrorContains(t, client.Incr(t.Context(), "a").Err(), "NOAUTH")
	known := redis.NewClient(&redis.Options{Addr: addr, Password: "secret", MaxRetries: -1})
	defer known.Close()
	require.Equal(t, int64(5), known.IncrBy(t.Context(), "a", 5).Val())
	require.Equal(t, http.StatusOK, withKey(t, http.DefaultClient, http.MethodPost, p.url(t)+"/v1/counters/a/increment", "secret"))
	require.Equal(t, "6", known.Get(t.Context(), "a").Val(), "it is the same counter")
	_, metrics := get(t, p.url(t)+"/metrics")
	require.Contains(t, metrics, `afterwrite_writes_total{op="increment"} 2`)
	require.Contains(t, metrics, `afterwrite_resp_commands_total{command="incrby"} 1`)
	p.stop(t)
}

// A hosts file may give localhost another address.
func TestTheAPIIsNotOpenWhereverItsNameLeads(t *testing.T) {
	t.Parallel()
	elsewhere, here := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8080}, &net.TCPAddr{IP: net.IPv6loopback, Port: 8080}
	for _, address := range []string{"localhost:8080", "127.0.0.1:0", "[::1]:8080"} {
		c := config.Config{APIAddr: address}
		require.NoError(t, refuseOpenAPI(c, here), address)
		require.Error(t, refuseOpenAPI(c, elsewhere), address)
		c.APIOpen = true
		require.NoError(t, refuseOpenAPI(c, elsewhere), address)
		c.APIOpen, c.APIKeys = false, keyLine("web", "secret", "read")
		require.NoError(t, refuseOpenAPI(c, elsewhere), address)
	}
	for _, address := range []string{"0.0.0.0:8080", ":8080", "[::]:8080", "api.internal:8080"} {
		require.Error(t, refuseOpenAPI(config.Config{APIAddr: address}, here), address)
	}
}

func TestWrongKeysAreAnErrorWithoutSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte("# keys\n"+keyLine("web", "hunter2", "read")+":\n"), 0o600))
	hash := strings.Split(keyLine("web", "hunter2", "read"), ":")[1]
	for setting, want := range map[string]string{
		"AFTERWRITE_API_KEYS=" + keyLine("web", "hunter2", "everything"): "AFTERWRITE_API_KEYS: key 1: web: scopes must be read, write or admin",
		"AFTERWRITE_API_KEYS=web:hunter2hunter2hunter2:read":             "AFTERWRITE_API_KEYS: key 1: the hash of web must have 64 hexadecimal digits",
		"AFTERWRITE_API_KEYS_FILE=" + file:                               "AFTERWRITE_API_KEYS_FILE: line 2: the prefix of web is empty",
		"AFTERWRITE_API_KEYS_FILE=" + file + "x":                         "AFTERWRITE_API_KEYS_FILE: open the file: ",
		"AFTERWRITE_API_KEYS=" + keyLine("admin", "hunter2", "admin"):    "the name admin is used twice",
	} {
		env := append([]string{
			"REDIS_URL=redis://127.0.0.1:1/0", noPostgres, "AFTERWRITE_LOG_LEVEL=debug", "AFTERWRITE_ADMIN_TOKEN=sixteen-letters-", setting,
		}, anywhere...)
		p := start(t, env, "api")
		require.Contains(t, p.oneLine(t), want)
		require.NotContains(t, p.out.String(), "hunter2")
		require.NotContains(t, p.out.String(), hash)
	}
}

func TestTheFileOfKeysIsReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(lines ...string) {
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	}
	write(keyLine("one", "first", "read"))
	p := start(t, append(append(servers(t), "AFTERWRITE_API_KEYS_FILE="+file), anywhere...), "api")
	url := p.url(t) + "/v1/counters/a"
	status := func(key string) int { return withKey(t, http.DefaultClient, http.MethodGet, url, key) }
	become := func(key string, want int) {
		t.Helper()
		localtest.Eventually(t, patience, func() (bool, string) {
			got := status(key)
			return got == want, strconv.Itoa(got)
		})
	}
	become("first", http.StatusNotFound) // the counter

	write(keyLine("one", "first", "read"), keyLine("two", "second", "read"))
	become("second", http.StatusNotFound)
	write(keyLine("two", "second", "read"))
	become("first", http.StatusUnauthorized)

	broken := keyLine("two", "third", "reed")
	write("# a comment", broken)
	p.find(t, `the API keys were not read again; the old ones stay.*(line 2: two: scopes must be)`)
	require.Equal(t, http.StatusNotFound, status("second"))
	require.NotContains(t, p.out.String(), strings.Split(broken, ":")[1])
	write("")
	p.find(t, `the API keys were not read again; the old ones stay.*(there is no key)`)
	require.Equal(t, http.StatusNotFound, status("second"))

	// As Kubernetes replaces a secret: another file under the same name.
	require.NoError(t, os.WriteFile(file+".new", []byte(keyLine("two", "third", "read")), 0o600))
	require.NoError(t, os.Rename(file+".new", file))
	become("third", http.StatusNotFound)
	require.Equal(t, http.StatusUnauthorized, status("second"))

	before := strings.Count(p.out.String(), "API keys read again")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	localtest.Eventually(t, patience, func() (bool, string) {
		return strings.Count(p.out.String(), "API keys read again") > before, p.out.String()
	})
	require.Equal(t, http.StatusNotFound, status("third"))
	p.stop(t)
}

func TestAPIKeyNewMakesAKeyThatWorks(t *testing.T) {
	t.Parallel()
	r := runHere(t.Context(), "api-key", "new", "web", "--prefix", "team:1:")
	require.Equal(t, exitOK, r.status, r.stderr)
	found := regexp.MustCompile(`\A.*\n(aw_\S{43})\n\n.*\n(web:[0-9a-f]{64}:read\+write:team:1:)\n\z`).FindStringSubmatch(r.stdout)
	require.NotNil(t, found, r.stdout)

	p := start(t, append(append(servers(t), "AFTERWRITE_API_KEYS="+found[2]), anywhere...), "api")
	for key, want := range map[string]int{"team:1:a": http.StatusOK, "team:2:a": http.StatusForbidden} {
		require.Equal(t, want, withKey(t, http.DefaultClient, http.MethodPost, p.url(t)+"/v1/counters/"+key+"/increment", found[1]))
	}
	p.stop(t)
	require.NotContains(t, p.out.String(), found[1])

	require.Contains(t, runHere(t.Context(), "api-key", "new", "web", "--prefix", "a,b").stdout, "a list cannot have a prefix with a comma")
	for _, args := range [][]string{{"a b"}, {"web", "--scopes", "all"}, {"web", "--scopes", "admin", "--prefix", "a"}} {
		r := runHere(t.Context(), append([]string{"api-key", "new"}, args...)...)
		require.Equal(t, exitFailure, r.status)
		require.Empty(t, r.stdout)
	}
}
