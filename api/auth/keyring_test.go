package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func codeOf(err error) counter.Code { return counter.CodeOf(err) }

func newRing(t testing.TB, o auth.Options) *auth.Keyring {
	t.Helper()
	ring, err := auth.New(o)
	require.NoError(t, err)
	return ring
}

// keys parses entries such as "web:<key>:read", and puts the hash of a key in place of the key in brackets.
func keys(t testing.TB, list string) []auth.Key {
	t.Helper()
	for strings.Contains(list, "<") {
		before, rest, _ := strings.Cut(list, "<")
		key, after, _ := strings.Cut(rest, ">")
		list = before + hash(key) + after
	}
	parsed, err := auth.ParseList(list)
	require.NoError(t, err)
	return parsed
}

func TestAdmitRequiresTheKeyAndItsScope(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "r:<r>:read,w:<w>:write,rw:<rw>:read+write,a:<a>:admin,all:<all>:read+write+admin")})
	for key, has := range map[string]auth.Scope{
		"r": auth.Read, "w": auth.Write, "rw": auth.Read | auth.Write, "a": auth.Admin, "all": auth.Read | auth.Write | auth.Admin,
	} {
		for _, need := range []auth.Scope{auth.Read, auth.Write, auth.Admin} {
			k, err := ring.Admit(bearer(key), need)
			if has&need != 0 {
				require.NoError(t, err)
				require.Equal(t, key, k.Name)
				continue
			}
			require.Equal(t, auth.CodeForbidden, codeOf(err))
			require.ErrorContains(t, err, "the API key "+key+" lacks the scope "+need.String())
		}
		_, err := ring.Admit(bearer(key), 0)
		require.Equal(t, auth.CodeForbidden, codeOf(err), "a route without a scope is for nobody")
	}
}

func TestAdmitRefusesWhatIsNotExactlyOneKey(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "r:<secret>:read")})
	for _, values := range [][]string{
		nil,
		{""},
		{"Bearer"},
		{"Bearer "},
		{"secret"},
		{"Basic secret"},
		{"Bearer secre"},
		{"Bearer secrets"},
		{"Bearer SECRET"},
		{"Bearer secret, Bearer secret"},
		{"Bearer secret", "Bearer secret"},
		{"Bearer secret", ""},
		{"Bearer sec ret"},
		{"Bearersecret"},
		{"Bearer " + hash("secret")},
		{"Bearer secret\x00"},
		{"Bearer " + strings.Repeat("x", 1<<16)},
	} {
		_, err := ring.Admit(http.Header{"Authorization": values}, auth.Read)
		require.Equal(t, auth.CodeUnauthorized, codeOf(err), "%q", values)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, value := range []string{"Bearer secret", "bearer secret", "BEARER   secret\t"} {
		_, err := ring.Admit(http.Header{"Authorization": {value}}, auth.Read)
		require.NoError(t, err, value)
	}
}

func TestWithoutKeysEverybodyReadsAndWrites(t *testing.T) {
	t.Parallel()
	for name, ring := range map[string]*auth.Keyring{"open": auth.Open(), "token": newRing(t, auth.Options{AdminToken: "token"})} {
		for _, h := range []http.Header{nil, bearer("anything"), bearer("token")} {
			for _, scope := range []auth.Scope{auth.Read, auth.Write} {
				k, err := ring.Admit(h, scope)
				require.NoError(t, err)
				require.NoError(t, k.CheckAll())
			}
		}
		require.Equal(t, name == "token", ring.Has(auth.Admin))
		require.Equal(t, name == "token", ring.Any())
		_, err := ring.Admit(bearer("anything"), auth.Admin)
		require.Equal(t, auth.CodeUnauthorized, codeOf(err))
		_, err = ring.Admit(bearer("token"), auth.Admin)
		require.Equal(t, name == "token", err == nil)
	}
}

func TestTheAdminTokenIsAKeyForAdminOnly(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "r:<r>:read"), AdminToken: "token"})
	k, err := ring.Admit(bearer("token"), auth.Admin)
	require.NoError(t, err)
	require.Equal(t, "admin", k.Name)
	_, err = ring.Admit(bearer("token"), auth.Read)
	require.Equal(t, auth.CodeForbidden, codeOf(err))

	for _, list := range []string{"admin:<x>:admin", "x:<token>:admin"} {
		_, err := auth.New(auth.Options{Keys: keys(t, list), AdminToken: "token"})
		require.ErrorContains(t, err, "AFTERWRITE_ADMIN_TOKEN", list)
		require.Error(t, ring.Replace(keys(t, list)))
	}
	_, err = ring.Admit(bearer("r"), auth.Read)
	require.NoError(t, err, "the old keys stay")
}

func TestPrefixesBoundWhatAKeyMayUse(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "team:<team>:read:team1/,all:<all>:read")})
	team, err := ring.Admit(bearer("team"), auth.Read)
	require.NoError(t, err)
	all, err := ring.Admit(bearer("all"), auth.Read)
	require.NoError(t, err)
	for key, covered := range map[counter.Key]bool{"team1/": true, "team1/a": true, "team1": false, "team10/a": false, "Team1/a": false, "a": false} {
		require.Equal(t, covered, team.Covers(key), key)
		require.Equal(t, covered, team.Check(key) == nil, key)
		require.True(t, all.Covers(key))
		require.NoError(t, (*auth.Key)(nil).Check(key))
	}
	require.Equal(t, auth.CodeForbidden, codeOf(team.Check("a")))
	require.Equal(t, auth.CodeForbidden, codeOf(team.CheckAll()))
	require.NoError(t, all.CheckAll())
	require.NoError(t, (*auth.Key)(nil).CheckAll())

	for requested, want := range map[string]string{"": "team1/", "team1/": "team1/", "team1/a": "team1/a"} {
		got, err := team.Within(requested)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, outside := range []string{"team1", "t", "team2/", "a"} {
		_, err := team.Within(outside)
		require.Equal(t, auth.CodeForbidden, codeOf(err), outside)
		for _, k := range []*auth.Key{all, nil} {
			got, err := k.Within(outside)
			require.NoError(t, err)
			require.Equal(t, outside, got)
		}
	}
}

func TestReplaceKeepsCountsAndRatesOfNames(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "a:<1>:read,b:<2>:read"), OperationsPerSec: 1})
	for range 3 {
		a, err := ring.Admit(bearer("1"), auth.Read)
		require.NoError(t, err)
		_, _ = a.Take(1)
	}
	require.NoError(t, ring.Replace(keys(t, "a:<3>:write,c:<2>:read")))

	_, err := ring.Admit(bearer("1"), auth.Read)
	require.Equal(t, auth.CodeUnauthorized, codeOf(err))
	a, err := ring.Admit(bearer("3"), auth.Write)
	require.NoError(t, err)
	_, err = a.Take(1)
	require.Equal(t, auth.CodeRateLimited, codeOf(err))
	c, err := ring.Admit(bearer("2"), auth.Read)
	require.NoError(t, err)
	_, err = c.Take(1)
	require.NoError(t, err)
	require.NoError(t, testutil.CollectAndCompare(ring, strings.NewReader(`
# HELP afterwrite_api_requests_total Requests by the name of their API key. Requests without a known key, or that need none, have the empty name. Requests to /healthz, /readyz, /metrics and for documentation are not counted.
# TYPE afterwrite_api_requests_total counter
afterwrite_api_requests_total{key=""} 1
afterwrite_api_requests_total{key="a"} 4
afterwrite_api_requests_total{key="c"} 1
`)))
}

func TestARateRefusesWholeRequests(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "a:<a>:read,b:<b>:read"), OperationsPerSec: 10})
	a, err := ring.Admit(bearer("a"), auth.Read)
	require.NoError(t, err)
	now := time.Now()

	quota, err := auth.TakeAt(a, now, 15)
	require.NoError(t, err)
	require.Equal(t, auth.Quota{Limit: 20, Remaining: 5, Reset: 1500 * time.Millisecond}, quota)
	quota, err = auth.TakeAt(a, now, 6)
	require.Equal(t, auth.CodeRateLimited, codeOf(err))
	require.Equal(t, auth.Quota{Limit: 20, Remaining: 5, Reset: 1500 * time.Millisecond}, quota, "none were taken")
	refused, _ := errors.AsType[*counter.Error](err)
	require.Equal(t, 100*time.Millisecond, refused.RetryAfter)
	_, err = auth.TakeAt(a, now, 5)
	require.NoError(t, err)
	_, err = auth.TakeAt(a, now.Add(time.Second), 11)
	require.Equal(t, auth.CodeRateLimited, codeOf(err))
	_, err = auth.TakeAt(a, now.Add(time.Second), 10)
	require.NoError(t, err)
	_, err = auth.TakeAt(a, now.Add(time.Hour), 21)
	require.ErrorContains(t, err, "the request has 21 operations, but the API key a may send at most 20 at once: send fewer operations")

	b, err := ring.Admit(bearer("b"), auth.Read)
	require.NoError(t, err)
	_, err = auth.TakeAt(b, now, 20)
	require.NoError(t, err, "each key has a rate of its own")
}

func TestWithoutKeysAllClientsShareTheRate(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{OperationsPerSec: 1})
	now := time.Now()
	for i := range 3 {
		k, err := ring.Admit(bearer(strconv.Itoa(i)), auth.Write)
		require.NoError(t, err)
		_, err = auth.TakeAt(k, now, 1)
		require.Equal(t, i == 2, err != nil)
	}
	quota, err := (*auth.Key)(nil).Take(1_000_000)
	require.NoError(t, err)
	require.Zero(t, quota)
}

func TestReadyTakesNothing(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "a:<a>:read"), OperationsPerSec: 1})
	a, err := ring.Admit(bearer("a"), auth.Read)
	require.NoError(t, err)
	for range 10 {
		_, err := a.Ready()
		require.NoError(t, err)
	}
	_, err = a.Take(2)
	require.NoError(t, err)
	quota, err := a.Ready()
	require.Equal(t, auth.CodeRateLimited, codeOf(err))
	require.Equal(t, 2, quota.Limit)
}

func TestWaitBlocksUntilTheOperationsFit(t *testing.T) {
	t.Parallel()
	ring := newRing(t, auth.Options{Keys: keys(t, "a:<a>:read"), OperationsPerSec: 1000})
	a, err := ring.Admit(bearer("a"), auth.Read)
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, a.Wait(t.Context(), 2300)) // more than the burst of 2000
	require.GreaterOrEqual(t, time.Since(began), 290*time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, a.Wait(ctx, 1_000_000), context.DeadlineExceeded)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, a.Wait(canceled, 1), context.Canceled)
	require.NoError(t, (*auth.Key)(nil).Wait(canceled, 1_000_000))
	require.Equal(t, 2000, a.Burst())
	require.Zero(t, (*auth.Key)(nil).Burst())
}

// BenchmarkAdmit measures the lookup of a key among 10,000.
func BenchmarkAdmit(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "k%d:%s:read\n", i, hash(fmt.Sprintf("aw_0123456789012345678901234567890123456789%03d", i)))
	}
	keys, err := auth.ParseFile(text.String())
	require.NoError(b, err)
	ring := newRing(b, auth.Options{Keys: keys})
	header := bearer("aw_0123456789012345678901234567890123456789123")
	b.ReportAllocs()
	for b.Loop() {
		if k, err := ring.Admit(header, auth.Read); err != nil || k.Name != "k123" {
			b.Fatal(err)
		}
	}
}
