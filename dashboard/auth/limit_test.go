package auth

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

func TestRejectedAttemptsDoNotUseUpTheLimit(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := newLimits(func() time.Time { return now })
	address := netip.MustParseAddr("192.0.2.1")
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for range 20 {
				l.take(address, "ann")
			}
		})
	}
	group.Wait()
	_, wait := l.take(address, "ann")
	require.Equal(t, addressEvery, wait, "the next attempt is allowed as soon as after ten attempts")
	now = now.Add(addressEvery)
	_, wait = l.take(address, "ann")
	require.Zero(t, wait)
}

// statusPages implements Pages with the status alone.
type statusPages struct{}

func (statusPages) SignIn(w http.ResponseWriter, _ *http.Request, status int, _, _ string) {
	w.WriteHeader(status)
}

func (statusPages) Reject(w http.ResponseWriter, _ *http.Request, status int, _ string) {
	w.WriteHeader(status)
}

func TestConcurrentSignInsAreBounded(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		const signIns = 60
		gate, err := New(Options{
			Address: "127.0.0.1:1", Users: []User{{Name: "olga", Hash: string(hash)}}, Pages: statusPages{},
			Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		codes := make(chan int, 2*signIns)
		signIn := func() {
			for i := range signIns {
				go func() {
					form := url.Values{"name": {strconv.Itoa(i)}, "password": {"wrong"}}
					r := httptest.NewRequest(http.MethodPost, SignInPath, strings.NewReader(form.Encode()))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1).String()
					w := httptest.NewRecorder()
					gate.SignIn(w, r)
					codes <- w.Code
				}()
			}
			synctest.Wait()
		}
		requireCodes := func(code, n int) {
			require.Len(t, codes, n)
			for range n {
				require.Equal(t, code, <-codes)
			}
		}
		checks := gate.passwords.checks
		require.NoError(t, checks.Acquire(t.Context(), maxChecks))
		signIn()
		requireCodes(http.StatusServiceUnavailable, signIns-maxWaiting-maxChecks)
		checks.Release(maxChecks)
		synctest.Wait()
		requireCodes(http.StatusUnauthorized, maxWaiting+maxChecks)

		require.NoError(t, checks.Acquire(t.Context(), maxChecks))
		signIn()
		requireCodes(http.StatusServiceUnavailable, signIns-maxWaiting-maxChecks)
		time.Sleep(maxWait)
		synctest.Wait()
		requireCodes(http.StatusServiceUnavailable, maxWaiting+maxChecks)
	})
}
