package store

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// Session settings that end abandoned statements. Values in the URL override ours.
const (
	settingStatementTimeout = "statement_timeout"
	settingLockTimeout      = "lock_timeout"
)

// parseDSN checks databaseURL, a postgres:// URL or lib/pq's key=value form, each with one host or several, and adds the settings that
// this package needs. Settings that the URL does not have come from libpq's variables (PGSSLMODE, PGPASSFILE, ...). Its errors contain no
// password.
func parseDSN(databaseURL string) (pq.Config, error) {
	if strings.TrimSpace(databaseURL) == "" {
		return pq.Config{}, errors.New("the database URL must not be empty; an example is postgres://user:password@host:port/database")
	}
	cfg, err := pq.NewConfig(withHostList(databaseURL))
	if err != nil {
		return pq.Config{}, dsnError(err)
	}
	// Statement and parameters are sent in one round trip, with arrays in binary form (see array.go). Otherwise lib/pq prepares an
	// unnamed statement and executes it in a second round trip, which a PgBouncer in transaction mode may send to another session.
	cfg.BinaryParameters = true
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = "afterwrite"
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.SSLMode == "" && onlyLoopback(cfg) {
		cfg.SSLMode = pq.SSLModePrefer // lib/pq's default requires TLS, which a local server rarely has
	}
	return cfg, nil
}

// dsnError hides errors that may contain a part of the password: net/url and the key=value parser quote their input.
func dsnError(err error) error {
	if strings.HasPrefix(err.Error(), "pq: ") {
		return fmt.Errorf("the database URL is wrong: %w", err)
	}
	return errors.New("the database URL must be postgres://user:password@host:port/database " +
		"with special characters in the password percent-encoded, or key=value pairs such as host=127.0.0.1 dbname=afterwrite")
}

// onlyLoopback reports whether every host of cfg is this machine.
func onlyLoopback(cfg pq.Config) bool {
	return !slices.ContainsFunc(hostsOf(cfg), func(h pq.ConfigMultihost) bool { return !isLoopback(h.Host, h.Hostaddr) })
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

// withTimeouts returns cfg with statement_timeout, and with a lock_timeout of a tenth of it: a locked row must be deferred before the
// rest of its batch has waited for long.
func withTimeouts(cfg pq.Config, statement time.Duration) pq.Config {
	cfg = cfg.Clone()
	for name, d := range map[string]time.Duration{settingStatementTimeout: statement, settingLockTimeout: statement / 10} {
		if _, own := cfg.Runtime[name]; !own {
			cfg.Runtime[name] = strconv.FormatInt(max(1, d.Milliseconds()), 10)
		}
	}
	return cfg
}

// withoutTimeouts returns cfg without both timeouts, even if the URL sets them.
func withoutTimeouts(cfg pq.Config) pq.Config {
	cfg = cfg.Clone()
	delete(cfg.Runtime, settingStatementTimeout)
	delete(cfg.Runtime, settingLockTimeout)
	return cfg
}
