package store

import (
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
)

func TestErrorForABadURLDoesNotShowThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"",
		"   ",
		"mysql://user:s3cret@host/db",
		"postgres://user:s3cret@host:port/db",
		"postgres://user:s3c#ret/s3cret@host/db",
		"postgres://user:s3cret%zz@host/db",
		"postgres://user:s3cret@host/db?sslmode=perhaps",
		"postgres://user:s3cret@host/db?connect_timeout=soon",
		"user=me password='s3cret",
		"user=me password=a s3cret host=h",
		"s3cret",
		"postgres://user:s3cret@h1:5432,h2:port/db",
		"postgres://user:s3cret@h1:1,h2:2,h3:3/db?port=1,2",
		"postgres://user:s3cret@[::1]:5432,[::2/db",
		"postgres://user:s3c,ret/s3cret@host/db",
		"postgres://user:s3c,ret?s3cret@host/db",
		"postgres://user:s3cret@h1:1,h2:2/db?port=1,two",
		"postgres://user:s3c@ret@h1,h2/db?target_session_attrs=writable",
		"host=h1,h2 port=1,2,3 password=s3cret",
	} {
		_, err := Open(url, Options{})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "cret", url)
		require.NotContains(t, err.Error(), "s3c", url)
	}
	_, err := Open("postgres://user@host/db?sslmode=perhaps", Options{})
	require.ErrorContains(t, err, "sslmode", "the cause is shown if it contains no secret")
}

func TestParseDSNAddsDefaults(t *testing.T) {
	t.Parallel()
	cfg, err := parseDSN("postgres://me@db.example.com/counters")
	require.NoError(t, err)
	require.True(t, cfg.BinaryParameters)
	require.Equal(t, "afterwrite", cfg.ApplicationName)
	require.Equal(t, connectTimeout, cfg.ConnectTimeout)
	require.NotEqual(t, pq.SSLModePrefer, cfg.SSLMode)

	timed := withTimeouts(cfg, 10*time.Second)
	require.Equal(t, "10000", timed.Runtime[settingStatementTimeout])
	require.Equal(t, "1000", timed.Runtime[settingLockTimeout])
	require.NotContains(t, cfg.Runtime, settingStatementTimeout, "the original is unchanged")
	require.NotContains(t, withoutTimeouts(timed).Runtime, settingStatementTimeout)

	own, err := parseDSN("postgres://me@db/counters?application_name=mine&connect_timeout=7&statement_timeout=123")
	require.NoError(t, err)
	require.Equal(t, "mine", own.ApplicationName)
	require.Equal(t, 7*time.Second, own.ConnectTimeout)
	require.Equal(t, "123", withTimeouts(own, time.Second).Runtime[settingStatementTimeout])
}

func TestTLSIsOptionalOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	for url, prefer := range map[string]bool{
		"postgres://me@127.0.0.1/db":                     true,
		"postgres://me@localhost:6543/db":                true,
		"postgres://me@[::1]:5432/db":                    true,
		"host=127.0.0.1,localhost user=me dbname=db":     true,
		"postgres://me@127.0.0.1:1,[::1]:2/db":           true,
		"postgres://me@127.0.0.1/db?sslmode=verify-full": false,
		"postgres://me@127.0.0.1,db.example.com/db":      false,
		"postgres://me@10.0.0.7/db":                      false,
		"host=db.example.com hostaddr=127.0.0.1 user=me": true,
	} {
		cfg, err := parseDSN(url)
		require.NoError(t, err, url)
		require.Equal(t, prefer, cfg.SSLMode == pq.SSLModePrefer, url)
	}
}
