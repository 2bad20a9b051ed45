package command

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

// keySource returns where the API keys are.
func keySource(c config.Config) auth.Source { return auth.Source{List: c.APIKeys, File: c.APIKeysFile} }

// apiKeys reads the API keys and the admin token.
func apiKeys(c config.Config) (*auth.Keyring, error) {
	keys, err := keySource(c).Read()
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Options{Keys: keys, AdminToken: c.AdminToken, OperationsPerSec: c.APIRate})
}

// refuseOpenAPI returns an error if the keys cannot be read, or if other machines could use the API without a key.
func refuseOpenAPI(c config.Config, at net.Addr) error {
	if _, err := apiKeys(c); err != nil {
		return err
	}
	return atBoth(c.Addr(c.APIAddr), at, func(address string) error { return checkAPIAddress(c, address) })
}

// refuseOpenRESP is refuseOpenAPI for the address of the Redis protocol.
func refuseOpenRESP(c config.Config, at net.Addr) error {
	return atBoth(c.RESPAddr, at, func(address string) error { return checkAPIAddress(c, address) })
}

// checkAPIAddress returns an error if other machines can reach the address, and need no key.
func checkAPIAddress(c config.Config, address string) error {
	if c.APIOpen || keySource(c).Set() || config.Loopback(address) {
		return nil
	}
	return fmt.Errorf("refusing to start: everybody who can reach %s could use the API: make a key with `afterwrite api-key new NAME` "+
		"and set AFTERWRITE_API_KEYS, or set AFTERWRITE_API_OPEN=true if a proxy or a firewall decides who reaches it", address)
}

// watchKeys returns a part of the process that reads the file of keys again when it changes, and on SIGHUP. After an error the old keys
// stay. It reads them for the first time itself, and does nothing without a file.
func watchKeys(c config.Config, log *slog.Logger) (keys *auth.Keyring, run func(context.Context) error, err error) {
	watcher := process.NewWatcher(c.APIKeysFile)
	if keys, err = apiKeys(c); err != nil {
		return nil, nil, err
	}
	reload := func() {
		next, err := keySource(c).Read()
		if err == nil {
			err = keys.Replace(next)
		}
		if err != nil {
			log.Error("the API keys were not read again; the old ones stay", "error", err)
			return
		}
		log.Info("API keys read again", "keys", len(next))
	}
	return keys, func(ctx context.Context) error {
		if c.APIKeysFile != "" {
			watcher.Run(ctx, reload)
		}
		return nil
	}, nil
}
