package auth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/auth"
)

// hash returns the hash of a key for the settings.
func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func TestKeysAreParsed(t *testing.T) {
	t.Parallel()
	const entries = "web:%s:read+write:team1/%sreport:%s:read%sops:%s:admin%sodd:%s:write:a:b:c"
	list := fmt.Sprintf(entries, hash("1"), ", ", hash("2"), ",", strings.ToUpper(hash("3")), ",", hash("4"))
	file := "# the keys\n\n" + fmt.Sprintf(entries, hash("1"), "\r\n", hash("2"), "\n  # nobody\n  \n", hash("3"), "\n", hash("4"))
	for name, parse := range map[string]func() ([]auth.Key, error){
		"list": func() ([]auth.Key, error) { return auth.ParseList(list) },
		"file": func() ([]auth.Key, error) { return auth.ParseFile(file) },
	} {
		keys, err := parse()
		require.NoError(t, err, name)
		var got []string
		for _, k := range keys {
			got = append(got, k.Name+" "+k.Scope.String()+" "+k.Prefix)
		}
		require.Equal(t, []string{"web read+write team1/", "report read ", "ops admin ", "odd write a:b:c"}, got, name)
	}
}

func TestErrorsNameThePlaceAndNoSecret(t *testing.T) {
	t.Parallel()
	good := "web:" + hash("good") + ":read"
	const secret = "aw_hunter2hunter2hunter2hunter2"
	for entry, want := range map[string]string{
		"app":                                    "a key must be name:hash:scopes",
		"app:" + hash("x"):                       "a key must be name:hash:scopes",
		hash("x") + ":app:read":                  "a name must have 1 to 63",
		secret + ":" + hash("x") + ":read":       "a name must have 1 to 63",
		"a b:" + hash("x") + ":read":             "a name must have 1 to 63",
		":" + hash("x") + ":read":                "a name must have 1 to 63",
		"app:" + secret + ":read":                "the hash of app must have 64 hexadecimal digits",
		"app:" + hash("x")[1:] + ":read":         "the hash of app must have 64 hexadecimal digits",
		"app:" + hash("") + ":read":              "the hash of app is the hash of an empty key",
		"app:" + hash("x") + ":" + secret:        "app: scopes must be read, write or admin",
		"app:" + hash("x") + ":":                 "app: scopes must be read, write or admin",
		"app:" + hash("x") + ":read+":            "app: scopes must be read, write or admin",
		"app:" + hash("x") + ":READ":             "app: scopes must be read, write or admin",
		"app:" + hash("x") + ":read:":            "the prefix of app is empty",
		"app:" + hash("x") + ":read:a\x00":       "the prefix of app must be the beginning of a counter's key",
		"app:" + hash("x") + ":read:\xff":        "the prefix of app must be the beginning of a counter's key",
		"app:" + hash("x") + ":read: a":          "must not begin or end with a space",
		"app:" + hash("x") + ":read:a ":          "must not begin or end with a space",
		"app:" + hash("x") + ":read+admin:team1": "which is for all counters, and a prefix",
		"web:" + hash("x") + ":read":             "the name web is used twice",
		"app:" + hash("good") + ":read":          "app has the same key as web",
	} {
		_, err := auth.ParseList(good + "," + entry)
		require.ErrorContains(t, err, "key 2: ", entry)
		require.ErrorContains(t, err, want, entry)
		_, inFile := auth.ParseFile("# first\n" + good + "\n" + entry + "\n")
		require.ErrorContains(t, inFile, "line 3: ", entry)
		for _, text := range []string{err.Error(), inFile.Error()} {
			require.NotContains(t, text, "hunter2", entry)
			require.NotRegexp(t, "[0-9a-f]{16}", text, entry)
		}
	}
	for _, empty := range []string{" ", ",", "\n# nothing\n"} {
		_, err := auth.ParseList(empty)
		require.Error(t, err)
		_, err = auth.ParseFile(empty)
		require.Error(t, err)
	}
}

func TestTheNumberOfKeysIsBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "k%d:%s:read:team%d/\n", i, hash(strconv.Itoa(i)), i)
	}
	keys, err := auth.ParseFile(text.String())
	require.NoError(t, err)
	ring := newRing(t, auth.Options{Keys: keys})
	for i := range 10_000 {
		k, err := ring.Admit(bearer(strconv.Itoa(i)), auth.Read)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("team%d/", i), k.Prefix)
	}
	_, err = ring.Admit(bearer("10000"), auth.Read)
	require.Equal(t, auth.CodeUnauthorized, codeOf(err))

	_, err = auth.ParseFile(text.String() + "more:" + hash("more") + ":read\n")
	require.ErrorContains(t, err, "line 10001: there are more than 10000 keys")
}

func TestASourceIsAListOrAFile(t *testing.T) {
	t.Parallel()
	line := "web:" + hash("1") + ":read"
	path := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	for _, source := range []auth.Source{{List: line}, {File: path}} {
		require.True(t, source.Set())
		keys, err := source.Read()
		require.NoError(t, err)
		require.Len(t, keys, 1)
	}
	keys, err := auth.Source{}.Read()
	require.NoError(t, err)
	require.Empty(t, keys)
	require.False(t, auth.Source{}.Set())
	_, err = auth.Source{List: line, File: path}.Read()
	require.ErrorContains(t, err, "both set")
	_, err = auth.Source{List: "web"}.Read()
	require.ErrorContains(t, err, "AFTERWRITE_API_KEYS: key 1: ")
	_, err = auth.Source{File: path + "x"}.Read()
	require.ErrorContains(t, err, "AFTERWRITE_API_KEYS_FILE: open the file: ")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("# a comment\n", 1<<20)), 0o600))
	_, err = auth.Source{File: path}.Read()
	require.ErrorContains(t, err, "longer than 8388608 bytes")
}

func TestAGeneratedKeyFitsItsLine(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 100 {
		key, line, err := auth.Generate("web", "read+write", "a:b")
		require.NoError(t, err)
		require.Regexp(t, `^aw_[A-Za-z0-9_-]{43}$`, key)
		require.False(t, seen[key])
		seen[key] = true
		require.Equal(t, "web:"+hash(key)+":read+write:a:b", line)
		keys, err := auth.ParseList(line)
		require.NoError(t, err)
		k, err := newRing(t, auth.Options{Keys: keys}).Admit(bearer(key), auth.Read)
		require.NoError(t, err)
		require.Equal(t, "a:b", k.Prefix)
	}
	for _, bad := range [][3]string{{"a:b", "read", ""}, {"", "read", ""}, {"web", "all", ""}, {"web", "admin", "a"}, {"web", "read", " a"}} {
		_, _, err := auth.Generate(bad[0], bad[1], bad[2])
		require.Error(t, err, "%v", bad)
	}
}

// bearer returns headers with the key.
func bearer(key string) http.Header {
	return http.Header{"Authorization": {"Bearer " + key}}
}
