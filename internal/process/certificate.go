package process

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/afterwrite/afterwrite/internal/config"
)

// certificate is a TLS certificate with its key. It is read again when its files change.
type certificate struct {
	certFile, keyFile string
	watcher           *Watcher
	current           atomic.Pointer[tls.Certificate]
}

// loadCertificate reads the certificate of the settings. It returns nil if they have none.
func loadCertificate(c config.Config) (*certificate, error) {
	if c.TLSCert == "" {
		return nil, nil //nolint:nilnil // no certificate is valid
	}
	own := &certificate{certFile: c.TLSCert, keyFile: c.TLSKey, watcher: NewWatcher(c.TLSCert, c.TLSKey)}
	return own, own.read()
}

// read replaces the certificate, unless the files do not belong together.
func (c *certificate) read() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate of AFTERWRITE_TLS_CERT and the key of AFTERWRITE_TLS_KEY: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// watch reads the certificate again when its files change, and on SIGHUP, until ctx is done. New connections get the new one.
func (c *certificate) watch(ctx context.Context, log *slog.Logger) {
	c.watcher.Run(ctx, func() {
		if err := c.read(); err != nil {
			log.Error("the TLS certificate was not read again; the old one stays", "error", err)
			return
		}
		log.Info("TLS certificate read again", "expires", c.current.Load().Leaf.NotAfter)
	})
}

// config returns the settings of a server.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}
