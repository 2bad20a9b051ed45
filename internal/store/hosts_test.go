package store

import (
	"strings"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
)

func TestAURLMayHaveSeveralHosts(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][]string{
		"postgres://me:x@one/db":                                   {"one:5432"},
		"postgres://me:x@one:1/db?target_session_attrs=read-write": {"one:1"},
		"postgres://me:p%40ss@one:1,two:2/db":                      {"one:1", "two:2"},
		"postgresql://me@one,two:2,three:3/db?sslmode=disable":     {"one:5432", "two:2", "three:3"},
		"postgres://me@one,two/db":                                 {"one:5432", "two:5432"},
		"postgres://me@one:1,two/db?port=7,8":                      {"one:7", "two:8"},
		"postgres://me@one,two/db?port=6543":                       {"one:6543", "two:6543"},
		"postgres://me:a%3A%2Fb@[::1]:1,[fe80::2]:2/db":            {"[::1]:1", "[fe80::2]:2"},
		"postgres://me@[::1],two/db":                               {"[::1]:5432", "two:5432"},
		"postgres://me@10.0.0.1:1,10.0.0.2:2":                      {"10.0.0.1:1", "10.0.0.2:2"},
		"postgres:///db?host=one,two&port=1,2&user=me":             {"one:1", "two:2"},
		"host=one,two port=1,2 user=me dbname=db":                  {"one:1", "two:2"},
		"host=one,two port=7 user=me target_session_attrs=primary": {"one:7", "two:7"},
		"host=one hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=me":     nil, // as in libpq, the numbers have to match
		"hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=me":              {"10.0.0.1:1", "10.0.0.2:2"},
	} {
		cfg, err := parseDSN(url)
		if want == nil {
			require.Error(t, err, url)
			continue
		}
		require.NoError(t, err, url)
		var got []string
		for _, host := range hostsOf(cfg) {
			got = append(got, addressOf(host))
		}
		require.Equal(t, want, got, url)
	}
}

func TestAHostListKeepsAllElseOfTheURL(t *testing.T) {
	t.Parallel()
	cfg, err := parseDSN("postgres://me:p%40s%20s%27@one:1,two:2/db?target_session_attrs=read-write&connect_timeout=2&search_path=a,b")
	require.NoError(t, err)
	require.Equal(t, "me", cfg.User)
	require.Equal(t, "p@s s'", cfg.Password)
	require.Equal(t, "db", cfg.Database)
	require.Equal(t, pq.TargetSessionAttrsReadWrite, cfg.TargetSessionAttrs)
	require.Equal(t, "a,b", cfg.Runtime["search_path"])
}

func TestTheHostThatWasReachedLastIsTriedFirst(t *testing.T) {
	t.Parallel()
	cfg, err := parseDSN("postgres://me@one:1,two:2,three:3/db")
	require.NoError(t, err)
	for address, want := range map[string]string{
		"":        "one:1 two:2 three:3",
		"one:1":   "one:1 two:2 three:3",
		"two:2":   "two:2 one:1 three:3",
		"three:3": "three:3 one:1 two:2",
		"other:1": "one:1 two:2 three:3",
	} {
		var got []string
		for _, host := range hostsOf(beginningWith(cfg, address)) {
			got = append(got, addressOf(host))
		}
		require.Equal(t, want, strings.Join(got, " "), address)
	}
}

func TestOnlyATargetThatAcceptsWritesSuitsSeveralHosts(t *testing.T) {
	t.Parallel()
	for url, anyHost := range map[string]bool{
		"postgres://me@127.0.0.1:1/db":                                             false,
		"postgres://me@127.0.0.1:1,127.0.0.1:2/db":                                 true,
		"postgres://me@127.0.0.1:1,127.0.0.1:2/db?target_session_attrs=any":        true,
		"postgres://me@127.0.0.1:1,127.0.0.1:2/db?target_session_attrs=read-write": false,
		"host=127.0.0.1,127.0.0.1 port=1,2 user=me target_session_attrs=primary":   false,
	} {
		info, err := open(t, url, Options{}).Info(t.Context())
		require.Error(t, err, url)
		require.Equal(t, anyHost, info.AnyHost, url)
	}
}
