package store

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// The settings of a session that end what nobody waits for any more. A URL that sets one of them itself keeps its own.
const (
	settingStatementTimeout = "statement_timeout"
	settingLockTimeout      = "lock_timeout"
)

// parseDSN checks databaseURL, a postgres:// URL or lib/pq's key=value form, and adds what this package needs. It takes the
// variables that libpq knows (PGSSLMODE, PGPASSFILE, ...) for what the URL leaves open. Its errors hold no password.
func parseDSN(databaseURL string) (pq.Config, error) {
	if strings.TrimSpace(databaseURL) == "" {
		return pq.Config{}, errors.New("the database URL is empty: it takes postgres://user:password@host:port/database")
	}
	cfg, err := pq.NewConfig(databaseURL)
	if err != nil {
		return pq.Config{}, dsnError(err)
	}
	// Parameters and statement go out in one message, arrays in their binary form (see array.go). Without it lib/pq
	// takes two round trips with an unnamed statement between them, which a PgBouncer in transaction mode may send to two
	// different sessions.
	cfg.BinaryParameters = true
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = "afterwrite"
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.SSLMode == "" && onlyLoopback(cfg) {
		cfg.SSLMode = pq.SSLModePrefer // lib/pq would insist on TLS, which a local server seldom has
	}
	return cfg, nil
}

// dsnError leaves out what may hold (part of) the password: net/url and the key=value parser quote their input.
func dsnError(err error) error {
	if strings.HasPrefix(err.Error(), "pq: ") {
		return fmt.Errorf("the database URL is wrong: %w", err)
	}
	return errors.New("the database URL cannot be parsed: it takes postgres://user:password@host:port/database " +
		"with special characters in the password percent-encoded, or key=value pairs like host=127.0.0.1 dbname=afterwrite")
}

// onlyLoopback reports whether every host of cfg is this machine.
func onlyLoopback(cfg pq.Config) bool {
	loopback := isLoopback(cfg.Host, cfg.Hostaddr)
	for _, m := range cfg.Multi {
		loopback = loopback && isLoopback(m.Host, m.Hostaddr)
	}
	return loopback
}

func isLoopback(host string, addr netip.Addr) bool {
	if addr.IsValid() {
		return addr.IsLoopback()
	}
	if host == "localhost" || filepath.IsAbs(host) || strings.HasPrefix(host, "@") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// withTimeouts returns cfg with both timeouts set on the session, lock_timeout at a tenth of statement: a row that
// somebody else holds is found out about, and put aside, before the others of its batch have waited for long.
func withTimeouts(cfg pq.Config, statement time.Duration) pq.Config {
	cfg = cfg.Clone()
	for name, d := range map[string]time.Duration{settingStatementTimeout: statement, settingLockTimeout: statement / 10} {
		if _, own := cfg.Runtime[name]; !own {
			cfg.Runtime[name] = strconv.FormatInt(max(1, d.Milliseconds()), 10)
		}
	}
	return cfg
}

// withoutTimeouts undoes withTimeouts, and drops what the URL says about them as well.
func withoutTimeouts(cfg pq.Config) pq.Config {
	cfg = cfg.Clone()
	delete(cfg.Runtime, settingStatementTimeout)
	delete(cfg.Runtime, settingLockTimeout)
	return cfg
}
