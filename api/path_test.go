package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Each key is written through a path and then through a batch, where keys are JSON strings. Both must be the same counter.
func TestKeysAreDecodedExactlyOnce(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"plain":                         "plain",
		"page:home":                     "page:home",
		"page%3Ahome2":                  "page:home2",
		"a%2Fb":                         "a/b",
		"a%2fb2":                        "a/b2",
		"%2F":                           "/",
		"%2F%2F":                        "//",
		"a%2Fincrement":                 "a/increment",
		"increment":                     "increment",
		"%2Fincrement":                  "/increment",
		"..%2F..%2Fv1%2Fbatch":          "../../v1/batch",
		"%2541":                         "%41",
		"%252F":                         "%2F",
		"%25":                           "%",
		"%25%32%46":                     "%2F",
		"100%25%20sure":                 "100% sure",
		"%20":                           " ",
		"a+b":                           "a+b",
		"a%2Bb2":                        "a+b2",
		".":                             ".",
		"..":                            "..",
		"%2E%2e%2E":                     "...",
		"...%2F.":                       ".../.",
		"~;=@,$&!*'()":                  "~;=@,$&!*'()",
		"a;b=c":                         "a;b=c",
		"a%3Fb%23c":                     "a?b#c",
		"a%22b%5C":                      `a"b\`,
		`a"<>[]^{|}b`:                   `a"<>[]^{|}b`,
		`%2F"`:                          `/"`,
		"%F0%9F%8E%89":                  "🎉",
		"🎉2":                            "🎉2",
		"🎉%2F":                          "🎉/",
		"e%CC%81":                       "e\u0301",
		"%C3%A9":                        "é",
		"%E2%80%A8":                     "\u2028",
		"%EF%BF%BD":                     "\ufffd",
		":key":                          ":key",
		"*":                             "*",
		"%2A2":                          "*2",
		strings.Repeat("k", 255):        strings.Repeat("k", 255),
		strings.Repeat("%2F", 255):      strings.Repeat("/", 255),
		strings.Repeat("%E2%82%AC", 85): strings.Repeat("€", 85),
		"a?value=1":                     "a",
		"a2%3Fvalue=1?b=%2F":            "a2?value=1",
	}
	b := setup(t)
	version := make(map[string]int64)
	for encoded, key := range cases {
		path, query, _ := strings.Cut(encoded, "?")
		a := b.send(t, http.MethodPut, "/v1/counters/"+encoded, `{"value":7}`)
		version[key]++
		require.Equal(t, http.StatusOK, a.StatusCode, "%s: %s", encoded, a.text)
		require.Equal(t, unsynced(key, 7, version[key]), a.value(t), encoded)

		a = b.send(t, http.MethodPost, "/v1/counters/"+path+"/increment?"+query, "")
		version[key]++
		require.Equal(t, unsynced(key, 8, version[key]), a.value(t), encoded)
		require.Equal(t, unsynced(key, 8, version[key]), b.get(t, encoded), encoded)

		quoted, err := json.Marshal(key)
		require.NoError(t, err)
		a = b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"increment","by":0,"key":`+string(quoted)+`}`))
		version[key]++
		require.Contains(t, a.text, `"version":`+decimal(version[key]), encoded)
	}
}

func TestAnyValidKeySurvivesThePath(t *testing.T) {
	t.Parallel()
	b := setup(t)
	versions := make(map[string]int64)

	rapid.Check(t, func(r *rapid.T) {
		key := validKey().Draw(r, "key")
		n := rapid.Int64().Draw(r, "value")

		a := b.send(r, http.MethodPut, "/v1/counters/"+escapeSome(r, key), `{"value":`+decimal(n)+`}`)
		versions[key]++
		require.Equal(r, http.StatusOK, a.StatusCode, a.text)

		a = b.send(r, http.MethodGet, "/v1/counters/"+escapeSome(r, key), "")
		require.Equal(r, http.StatusOK, a.StatusCode, a.text)
		var got value
		require.NoError(r, json.Unmarshal([]byte(a.text), &got))
		require.Equal(r, unsynced(key, n, versions[key]), got)
	})
}

// validKey draws keys that counter.ParseKey accepts. Characters that are special in URLs or JSON are frequent.
func validKey() *rapid.Generator[string] {
	special := []rune("/%+.?#:;*\"\\ &=<>{}[]^|`'~@!$,()-_\u00a0\u2028\ufeff\ufffd🎉")
	char := rapid.OneOf(rapid.SampledFrom(special), rapid.RuneFrom([]rune("aAzZ09é€")), rapid.Rune()).
		Filter(func(r rune) bool { return !unicode.IsControl(r) })
	return rapid.StringOfN(char, 1, counter.MaxKeyBytes, counter.MaxKeyBytes)
}

// escapeSome percent-encodes the characters that need it, and some others. The hexadecimal digits have either case.
func escapeSome(r *rapid.T, key string) string {
	style := rapid.SampledFrom([]string{"least", "all", "some"}).Draw(r, "style")
	var s strings.Builder
	for i := range len(key) {
		c := key[i]
		must := c <= ' ' || c == 0x7f || strings.IndexByte("%/?", c) >= 0
		switch {
		case !must && (style == "least" || style == "some" && rapid.Bool().Draw(r, "raw")):
			s.WriteByte(c)
		case rapid.Bool().Draw(r, "upper"):
			fmt.Fprintf(&s, "%%%02X", c)
		default:
			fmt.Fprintf(&s, "%%%02x", c)
		}
	}
	return s.String()
}

// FuzzPathKey sends arbitrary bytes as the key in a path. The write path must get the decoded key or nothing.
func FuzzPathKey(f *testing.F) {
	for _, seed := range []string{
		"a", "a%2Fb", "%2541", "%25", "%", "%zz", "%2", "+", "..", "%2E%2E", "a/b", "%00", "%FF", "\xff", "🎉", "%F0%9F%8E%89", `"`, "é%2F",
		"increment", "a%2Fincrement", strings.Repeat("k", 256),
	} {
		f.Add(seed)
	}
	var got counter.Key
	handler := api.New(counters(func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		got = ops[0].Key
		return []counter.Result{{Counter: counter.Counter{Key: got, Known: true, Exists: true}}}
	}), api.Options{})
	f.Fuzz(func(t *testing.T, encoded string) {
		got = ""
		request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(requestText("GET", "/v1/counters/"+encoded, ""))))
		if err != nil || request.Method != http.MethodGet {
			return // net/http rejects it
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		status := recorder.Code

		path, _, _ := strings.Cut(encoded, "?")
		want, err := api.DecodeKey(path)
		switch {
		case strings.Contains(path, "/"):
			require.Empty(t, got)
			require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest}, status)
		case err != nil:
			require.Empty(t, got)
			require.Equal(t, http.StatusBadRequest, status)
		default:
			require.Equal(t, want, got)
			require.Equal(t, http.StatusOK, status)
		}
	})
}
