package cache

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// TLSFiles are PEM files for connections to Redis, and to its sentinels. An empty path means the default.
type TLSFiles struct {
	// CA has the certificates that may sign the server's certificate (AFTERWRITE_REDIS_CA). By default these are the system's.
	CA string
	// Cert and Key are the client's certificate with its intermediates, and its private key (AFTERWRITE_REDIS_CERT and
	// AFTERWRITE_REDIS_KEY), for servers that ask for one. Set both or none.
	Cert, Key string
}

// IsTrustError reports whether a connection failed because no trusted CA signed the server's certificate.
func IsTrustError(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}

// apply sets the files in the options of a client. It returns an error if a file cannot be used, or if the URL is one without TLS.
func (f TLSFiles) apply(o *redis.UniversalOptions) error {
	if f == (TLSFiles{}) {
		return nil
	}
	if o.TLSConfig == nil {
		return errors.New("AFTERWRITE_REDIS_CA, AFTERWRITE_REDIS_CERT or AFTERWRITE_REDIS_KEY is set, but REDIS_URL is without TLS: " +
			"begin it with rediss://, rediss-sentinel:// or rediss-cluster://")
	}
	if f.CA != "" {
		if o.TLSConfig.InsecureSkipVerify {
			return errors.New("AFTERWRITE_REDIS_CA is set, but REDIS_URL says skip_verify=true: remove one of them")
		}
		pool, err := readCA(f.CA)
		if err != nil {
			return fmt.Errorf("AFTERWRITE_REDIS_CA cannot be used: %w", err)
		}
		o.TLSConfig.RootCAs = pool
	}
	if f.Cert == "" && f.Key == "" {
		return nil
	}
	client, err := readClientCertificate(f.Cert, f.Key)
	if err != nil {
		return err
	}
	o.TLSConfig.GetClientCertificate = client.get
	return nil
}

// readCA reads one certificate or more.
func readCA(path string) (*x509.CertPool, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the operation and the file
	}
	pool, found := x509.NewCertPool(), false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pool.AddCert(certificate)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("%s has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	return pool, nil
}

// clientCertificate reads its files again at each handshake, so that a renewed certificate needs no restart.
type clientCertificate struct {
	cert, key string
	last      atomic.Pointer[tls.Certificate]
}

func readClientCertificate(cert, key string) (*clientCertificate, error) {
	c := &clientCertificate{cert: cert, key: key}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("AFTERWRITE_REDIS_CERT and AFTERWRITE_REDIS_KEY cannot be used: %w", err)
	}
	c.last.Store(&pair)
	return c, nil
}

// get implements tls.Config.GetClientCertificate. Files that cannot be used, because they are just being replaced, change nothing.
func (c *clientCertificate) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if pair, err := tls.LoadX509KeyPair(c.cert, c.key); err == nil {
		c.last.Store(&pair)
	}
	return c.last.Load(), nil
}
