package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// pair is a self-signed certificate for counters.example, in files.
type pair struct {
	cert, key string
	pool      *x509.CertPool
}

// makePair writes a new certificate with this serial number into dir.
func makePair(t *testing.T, dir string, serial int64) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"counters.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	p := pair{cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), pool: x509.NewCertPool()}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.pool.AppendCertsFromPEM(certText)
	require.NoError(t, os.WriteFile(p.cert, certText, 0o600))
	require.NoError(t, os.WriteFile(p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return p
}

// client returns a client that trusts the certificate, and speaks HTTP/2 if h2 is set.
func (p pair) client(h2 bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		ForceAttemptHTTP2: h2, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: p.pool, ServerName: "counters.example"},
	}}
}

// serial returns the serial number of the certificate that the address answers with.
func serial(t *testing.T, address string) int64 {
	t.Helper()
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is about the certificate
	require.NoError(t, err)
	defer func() { require.NoError(t, connection.Close()) }()
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestTheAPIServesTLS(t *testing.T) {
	t.Parallel()
	p := makePair(t, t.TempDir(), 1)
	api := start(t, append(append(servers(t), "AFTERWRITE_TLS_CERT="+p.cert, "AFTERWRITE_TLS_KEY="+p.key), anywhere...), "api")
	address := strings.TrimPrefix(api.url(t), "http://")
	url := "https://" + address

	for _, h2 := range []bool{false, true} {
		client := p.client(h2)
		var body bytes.Buffer
		body.WriteString(`{"operations":[{"op":"increment","key":"a"}`)
		for range 9_999 {
			body.WriteString(`,{"op":"increment","key":"a"}`)
		}
		body.WriteString(`]}`)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/batch", &body)
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(request)
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusOK, answer.StatusCode)
		require.Equal(t, 10_000, bytes.Count(text, []byte(`"key":"a"`)))
		require.Equal(t, h2, answer.ProtoMajor == 2)
	}

	// The key in a path keeps its escapes, also over HTTP/2.
	for _, h2 := range []bool{false, true} {
		require.Equal(t, http.StatusOK, withKey(t, p.client(h2), http.MethodPost, url+"/v1/counters/x%2Fy%252F/increment", ""))
	}

	old := &tls.Config{RootCAs: p.pool, ServerName: "counters.example", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10} //nolint:gosec // it must fail
	_, err := tls.Dial("tcp", address, old)
	require.ErrorContains(t, err, "protocol version")
	plain, err := http.Get("http://" + address + "/readyz")
	require.NoError(t, err)
	require.NoError(t, plain.Body.Close())
	require.Equal(t, http.StatusBadRequest, plain.StatusCode)

	require.Equal(t, exitOK, runHere(t.Context(), "healthcheck", url+"/readyz").status)
	require.Equal(t, exitFailure, runHere(t.Context(), "healthcheck", url+"/nothing").status)
	api.stop(t)
}

// A request that waits for Postgres is answered at shutdown, over HTTP/2 too.
func TestShutdownAnswersRequestsOverHTTP2(t *testing.T) {
	t.Parallel()
	p := makePair(t, t.TempDir(), 1)
	api := start(t, append(append(servers(t), "AFTERWRITE_TLS_CERT="+p.cert, "AFTERWRITE_TLS_KEY="+p.key), anywhere...), "api")
	url := "https://" + strings.TrimPrefix(api.url(t), "http://")
	require.Equal(t, http.StatusOK, withKey(t, p.client(true), http.MethodPost, url+"/v1/counters/a/increment", ""))

	status := make(chan string, 1)
	go func() { // no worker runs
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/counters/a?wait=synced&timeout=30s", http.NoBody)
		if err == nil {
			var answer *http.Response
			if answer, err = p.client(true).Do(request); err == nil {
				status <- fmt.Sprintf("%d %s", answer.StatusCode, answer.Proto)
				_ = answer.Body.Close()
				return
			}
		}
		status <- err.Error()
	}()
	localtest.Eventually(t, patience, func() (bool, string) {
		_, page := getWith(t, p.client(true), url+"/metrics")
		return strings.Contains(page, `afterwrite_api_requests_total{key=""} 2`), page
	})
	api.stop(t)
	require.Equal(t, "202 HTTP/2.0", <-status)
}

func getWith(t *testing.T, client *http.Client, url string) (status int, body string) {
	t.Helper()
	answer, err := client.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

func TestTheCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := makePair(t, dir, 1)
	api := start(t, append(append(servers(t), "AFTERWRITE_TLS_CERT="+p.cert, "AFTERWRITE_TLS_KEY="+p.key), anywhere...), "api")
	address := strings.TrimPrefix(api.url(t), "http://")
	require.EqualValues(t, 1, serial(t, address))

	makePair(t, dir, 2)
	localtest.Eventually(t, patience, func() (bool, string) { return serial(t, address) == 2, "the old certificate" })

	other := makePair(t, t.TempDir(), 3)
	text, err := os.ReadFile(other.cert)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.cert, text, 0o600)) // which does not belong to the key
	api.find(t, "(the TLS certificate was not read again; the old one stays)")
	require.EqualValues(t, 2, serial(t, address))

	makePair(t, dir, 4)
	localtest.Eventually(t, patience, func() (bool, string) { return serial(t, address) == 4, "the old certificate" })
	api.stop(t)
}

func TestAWrongCertificateIsAnError(t *testing.T) {
	t.Parallel()
	p := makePair(t, t.TempDir(), 1)
	env := append([]string{"REDIS_URL=redis://127.0.0.1:1/0", noPostgres}, anywhere...)
	for _, files := range [][2]string{{p.cert, p.cert}, {p.key, p.key}, {p.cert, p.key + "x"}, {makePair(t, t.TempDir(), 2).cert, p.key}} {
		line := start(t, append(env, "AFTERWRITE_TLS_CERT="+files[0], "AFTERWRITE_TLS_KEY="+files[1]), "api").oneLine(t)
		require.Contains(t, line, "AFTERWRITE_TLS_CERT")
		require.NotContains(t, line, "PRIVATE KEY-")
	}
	require.Contains(t, start(t, append(env, "AFTERWRITE_TLS_CERT="+p.cert), "api").oneLine(t), "set both or none")
}
