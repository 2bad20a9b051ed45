package cache_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// secure starts a Redis that also listens with TLS, and returns its password and the port for TLS.
func secure(t *testing.T, files localtest.Certificates, args ...string) (password, port string) {
	t.Helper()
	free, err := local.FreePort()
	require.NoError(t, err)
	port = strconv.Itoa(free)
	server := localtest.OwnRedis(t, local.RedisOptions{Args: append(files.RedisArgs(port), args...)})
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	password, _ = u.User.Password()
	return password, port
}

func connectTLS(t *testing.T, url string, files cache.TLSFiles) redis.UniversalClient {
	t.Helper()
	client, err := cache.ConnectTLS(url, files, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func allFiles(c localtest.Certificates) cache.TLSFiles {
	return cache.TLSFiles{CA: c.CA, Cert: c.ClientCert, Key: c.ClientKey}
}

// written fails unless a counter can be written through the client.
func written(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	w := cache.New(client, cache.Options{Shards: testShards, CleanTTL: time.Hour}).NewWriter(func() bool { return true })
	defer w.Close()
	b := &testBundle{writer: w}
	require.NoError(t, b.blind(t, increment("k", 1))[0].Err)
}

func TestTLSWithACAAndAClientCertificateOfOnesOwn(t *testing.T) {
	t.Parallel()
	files, others := localtest.NewCertificates(t), localtest.NewCertificates(t)
	password, port := secure(t, files)
	address := fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port)
	written(t, connectTLS(t, address, allFiles(files)))

	for want, wrong := range map[string]cache.TLSFiles{
		"certificate signed by unknown authority": {Cert: files.ClientCert, Key: files.ClientKey},
		"unknown authority":                       {CA: others.CA, Cert: files.ClientCert, Key: files.ClientKey},
		"certificate required":                    {CA: files.CA},
		"unknown certificate authority":           {CA: files.CA, Cert: others.ClientCert, Key: others.ClientKey},
	} {
		client := connectTLS(t, address, wrong)
		require.Equal(t, wrong.CA != files.CA, cache.IsTrustError(refusedWith(t, client, want)), want)
	}
}

// A handshake comes before the request, so a write was certainly not applied.
func TestWriteWithoutATrustedConnectionWasNotSent(t *testing.T) {
	t.Parallel()
	files, others := localtest.NewCertificates(t), localtest.NewCertificates(t)
	password, port := secure(t, files)
	client := connectTLS(t, fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port), cache.TLSFiles{CA: others.CA})
	w := cache.New(client, cache.Options{Shards: testShards, CleanTTL: time.Hour}).NewWriter(func() bool { return true })
	t.Cleanup(w.Close)
	b := &testBundle{writer: w}

	err := b.blind(t, increment("k", 1))[0].Err

	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(err))
	require.True(t, cache.IsTrustError(err), "%v", err)
	require.False(t, cache.Away(err), "it is no failover: %v", err)
}

// refusedWith returns the error of a client that cannot connect, because of want. The server refuses a certificate after the client's
// handshake has ended, so a client that writes at once may see only that the connection was reset.
func refusedWith(t *testing.T, client redis.UniversalClient, want string) (err error) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		err = client.Ping(t.Context()).Err()
		require.Error(t, err)
		return strings.Contains(err.Error(), want), err.Error()
	})
	return err
}

// A renewed certificate is used for the next connection; files that do not belong together are not.
func TestClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	files, others := localtest.NewCertificates(t), localtest.NewCertificates(t)
	password, port := secure(t, files)
	replace := func(to, from string) {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, text, 0o600))
	}
	used := cache.TLSFiles{CA: files.CA, Cert: filepath.Join(t.TempDir(), "crt"), Key: filepath.Join(t.TempDir(), "key")}
	replace(used.Cert, others.ClientCert)
	replace(used.Key, others.ClientKey)
	client := connectTLS(t, fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port), used)
	require.Error(t, client.Ping(t.Context()).Err())

	replace(used.Cert, files.ClientCert)
	require.Error(t, refusedWith(t, client, "unknown certificate authority"), "still the old pair")
	replace(used.Key, files.ClientKey)
	require.NoError(t, client.Ping(t.Context()).Err())
}

func TestTLSToAClusterAndThroughSentinel(t *testing.T) {
	t.Parallel()
	files := localtest.NewCertificates(t)
	password, port := secure(t, files, "--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-announce-ip", "127.0.0.1")
	node := connectTLS(t, fmt.Sprintf("rediss://:%s@127.0.0.1:%s", password, port), allFiles(files))
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := node.ClusterInfo(t.Context()).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok"), info
	})
	written(t, connectTLS(t, fmt.Sprintf("rediss-cluster://:%s@127.0.0.1:%s", password, port), allFiles(files)))

	password, port = secure(t, files)
	sentinel := startSentinel(t, files, password, port)
	written(t, connectTLS(t, fmt.Sprintf("rediss-sentinel://:%s@127.0.0.1:%s/0?master=m", password, sentinel), allFiles(files)))
}

// startSentinel starts a sentinel that listens with TLS only, and returns its port.
func startSentinel(t *testing.T, files localtest.Certificates, password, master string) (port string) {
	t.Helper()
	free, err := local.FreePort()
	require.NoError(t, err)
	port = strconv.Itoa(free)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	var text strings.Builder
	text.WriteString("bind 127.0.0.1\nport 0\ntls-replication yes\nsentinel monitor m 127.0.0.1 " + master + " 1\nsentinel auth-pass m " + password + "\n")
	for i, word := range files.RedisArgs(port) {
		text.WriteString(strings.TrimPrefix(word, "--") + []string{" ", "\n"}[i%2])
	}
	require.NoError(t, os.WriteFile(config, []byte(text.String()), 0o600))
	process, err := local.Program{Path: "redis-server", Args: []string{config, "--sentinel"}, Dir: filepath.Dir(config)}.Start()
	require.NoError(t, err)
	t.Cleanup(func() { process.Kill() })
	client := connectTLS(t, "rediss://127.0.0.1:"+port, allFiles(files))
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		err := client.Do(t.Context(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m").Err()
		return err == nil, fmt.Sprint(err)
	})
	return port
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	files, empty := localtest.NewCertificates(t), filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("no PEM"), 0o600))
	for _, c := range []struct {
		url   string
		files cache.TLSFiles
		want  string
	}{
		{"redis://h", cache.TLSFiles{CA: files.CA}, "REDIS_URL is without TLS: begin it with rediss://"},
		{"unix:///redis.sock", cache.TLSFiles{CA: files.CA}, "REDIS_URL is without TLS"},
		{"redis-cluster://h:1", cache.TLSFiles{Cert: files.ClientCert, Key: files.ClientKey}, "REDIS_URL is without TLS"},
		{"rediss://h?skip_verify=true", cache.TLSFiles{CA: files.CA}, "skip_verify=true: remove one of them"},
		{"rediss://h", cache.TLSFiles{CA: "/nowhere"}, "AFTERWRITE_REDIS_CA cannot be used: open /nowhere: no such file"},
		{"rediss://h", cache.TLSFiles{CA: empty}, "AFTERWRITE_REDIS_CA cannot be used: " + empty + " has no certificate in PEM"},
		{"rediss://h", cache.TLSFiles{CA: files.ServerKey}, "has no certificate in PEM"},
		{"rediss://h", cache.TLSFiles{Cert: "/nowhere", Key: files.ClientKey}, "AFTERWRITE_REDIS_KEY cannot be used: open /nowhere"},
		{"rediss://h", cache.TLSFiles{Cert: files.ClientCert, Key: empty}, "AFTERWRITE_REDIS_KEY cannot be used: tls: failed to find any PEM"},
		{"rediss://h", cache.TLSFiles{Cert: files.ClientCert, Key: files.ServerKey}, "private key does not match"},
	} {
		_, err := cache.ConnectTLS(c.url, c.files, 1)
		require.ErrorContains(t, err, c.want)
	}
}
