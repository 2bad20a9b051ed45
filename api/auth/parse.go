package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxKeys bounds the keys of one process: they take about 10 MB.
	maxKeys = 10_000

	// maxFileBytes bounds the file of keys. It is enough for maxKeys with the longest names and prefixes.
	maxFileBytes = 8 << 20

	// secretPrefix begins every key that Generate makes, so that people and scanners recognize it.
	secretPrefix = "aw_"

	// AdminName is the name of the key that AFTERWRITE_ADMIN_TOKEN is.
	AdminName = "admin"
)

// keyName matches names, which appear in logs, metrics and errors. A hash in hexadecimal is too long to be one.
var keyName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,63}$`)

// Source says where the keys are: in a list (AFTERWRITE_API_KEYS) or in a file (AFTERWRITE_API_KEYS_FILE). At most one is set.
type Source struct {
	List string
	File string // its path
}

// Set reports whether there are keys.
func (s Source) Set() bool { return s.List != "" || s.File != "" }

// Read reads the keys. It returns none if neither is set. Its error names the variable and the place, but no secret.
func (s Source) Read() ([]Key, error) {
	switch {
	case s.List != "" && s.File != "":
		return nil, errors.New("AFTERWRITE_API_KEYS and AFTERWRITE_API_KEYS_FILE are both set: set one of them")
	case s.List != "":
		keys, err := ParseList(s.List)
		return keys, about("AFTERWRITE_API_KEYS", err)
	case s.File != "":
		text, err := readFile(s.File)
		if err != nil {
			return nil, about("AFTERWRITE_API_KEYS_FILE", err)
		}
		keys, err := ParseFile(text)
		return keys, about("AFTERWRITE_API_KEYS_FILE", err)
	}
	return nil, nil
}

func about(variable string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", variable, err)
}

func readFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open the file: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the file: %w", err)
	case len(text) > maxFileBytes:
		return "", fmt.Errorf("the file is longer than %d bytes", maxFileBytes)
	}
	return string(text), nil
}

// ParseList parses keys that are separated by commas. Its error never contains a hash or a key.
func ParseList(list string) ([]Key, error) {
	return parse("key", strings.Split(list, ","))
}

// ParseFile parses keys, one a line. Empty lines, and lines that begin with #, are ignored. Its error names the line, and never contains
// a hash or a key.
func ParseFile(text string) ([]Key, error) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			line = ""
		}
		lines[i] = line
	}
	return parse("line", lines)
}

// parse parses the entries that are not empty. unit is what an entry is called in errors.
func parse(unit string, entries []string) ([]Key, error) {
	var keys []Key
	names, hashes := make(map[string]bool), make(map[[sha256.Size]byte]string)
	for i, entry := range entries {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		k, err := parseKey(entry)
		switch {
		case err != nil:
		case names[k.Name]:
			err = fmt.Errorf("the name %s is used twice", k.Name)
		case hashes[k.hash] != "":
			err = fmt.Errorf("%s has the same key as %s", k.Name, hashes[k.hash])
		case len(keys) == maxKeys:
			err = fmt.Errorf("there are more than %d keys", maxKeys)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %d: %w", unit, i+1, err)
		}
		names[k.Name], hashes[k.hash] = true, k.Name
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		// Not an API without keys, since an editor may empty a file before it writes it.
		return nil, errors.New("there is no key: make one with `afterwrite api-key new NAME`")
	}
	return keys, nil
}

// parseKey parses name:hash:scopes or name:hash:scopes:prefix. A prefix is everything after the third colon.
func parseKey(entry string) (Key, error) {
	parts := strings.SplitN(entry, ":", 4)
	if len(parts) < 3 {
		return Key{}, errors.New("a key must be name:hash:scopes or name:hash:scopes:prefix, as `afterwrite api-key new` prints it")
	}
	k := Key{Name: strings.TrimSpace(parts[0])}
	if !keyName.MatchString(k.Name) || strings.HasPrefix(k.Name, secretPrefix) {
		return Key{}, errors.New("a name must have 1 to 63 letters, digits and . _ @ -, and not begin with " + secretPrefix)
	}
	hash, err := hex.DecodeString(strings.TrimSpace(parts[1]))
	if err != nil || len(hash) != sha256.Size {
		return Key{}, fmt.Errorf("the hash of %s must have 64 hexadecimal digits: the SHA-256 of the key, not the key itself", k.Name)
	}
	k.hash = [sha256.Size]byte(hash)
	if k.hash == sha256.Sum256(nil) {
		return Key{}, fmt.Errorf("the hash of %s is the hash of an empty key", k.Name)
	}
	if k.Scope, err = ParseScope(parts[2]); err != nil {
		return Key{}, fmt.Errorf("%s: %w", k.Name, err)
	}
	if len(parts) == 4 {
		k.Prefix = parts[3]
		err = k.checkPrefix()
	}
	return k, err
}

func (k *Key) checkPrefix() error {
	_, err := counter.ParseKey(k.Prefix)
	switch {
	case k.Prefix == "": // perhaps a variable that was not set, so not a key for all counters
		return fmt.Errorf("the prefix of %s is empty: remove the third colon, if the key is for all counters", k.Name)
	case err != nil:
		return fmt.Errorf("the prefix of %s must be the beginning of a counter's key, valid UTF-8 without control characters, "+
			"of at most %d bytes", k.Name, counter.MaxKeyBytes)
	case strings.TrimSpace(k.Prefix) != k.Prefix: // which nobody sees in a file
		return fmt.Errorf("the prefix of %s must not begin or end with a space", k.Name)
	case k.Scope&Admin != 0:
		return fmt.Errorf("%s has the scope admin, which is for all counters, and a prefix: use two keys", k.Name)
	}
	return nil
}

// Generate makes a key with 256 random bits, and the line for the settings, which has its hash.
func Generate(name, scope, prefix string) (key, line string, err error) {
	random := make([]byte, sha256.Size)
	if _, err := rand.Read(random); err != nil {
		return "", "", fmt.Errorf("read random bytes: %w", err)
	}
	key = secretPrefix + base64.RawURLEncoding.EncodeToString(random)
	hash := sha256.Sum256([]byte(key))
	line = name + ":" + hex.EncodeToString(hash[:]) + ":" + scope
	if prefix != "" {
		line += ":" + prefix
	}
	if strings.ContainsAny(name, ":") { // it would shift the other fields
		return "", "", errors.New("a name has no colon")
	}
	if _, err := parseKey(line); err != nil {
		return "", "", err
	}
	return key, line, nil
}
