package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// keyValuePassword matches the password in lib/pq's key=value form, quoted or not.
var keyValuePassword = regexp.MustCompile(`(?i)\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))`)

// everyday are passwords that are also common words in logs, such as those of docker-compose.yml. These, and passwords shorter than
// minSecretBytes, are replaced only where the text has the form of a password.
var everyday = []string{"afterwrite", "password", "postgres", "redis", "default"}

const minSecretBytes = 4

// bcryptHash matches a password hash in a list of users, also one that a shell has damaged by expanding its dollar signs.
var bcryptHash = regexp.MustCompile(`\$2[a-z]?\$[^,:\s]+`)

// apiKeyHash matches a hash of an API key in any case. apiKey matches a key that was set in place of its hash.
var (
	apiKeyHash = regexp.MustCompile(`[0-9A-Fa-f]{64}`)
	apiKey     = regexp.MustCompile(`aw_[0-9A-Za-z_-]{8,}`)
)

// Secrets returns the texts that no log may show: the passwords in URLs, both encoded and decoded, the admin token, the API keys and
// their hashes, the headers of the trace collector, and password hashes in any of the dashboard's variables. No text is empty.
func Secrets(environment map[string]string) []string {
	var secrets []string
	add := func(candidates ...string) {
		for _, s := range candidates {
			switch {
			case s == "":
			case len(s) < minSecretBytes || slices.Contains(everyday, s):
				secrets = append(secrets, ":"+s+"@", "password="+s, "password='"+s+"'")
			default:
				secrets = append(secrets, s)
			}
		}
	}
	for _, name := range []string{
		"REDIS_URL", "DATABASE_URL", "AFTERWRITE_DATABASE_READ_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
	} {
		add(passwords(environment[name])...)
	}
	add(environment["AFTERWRITE_ADMIN_TOKEN"], environment["PGPASSWORD"])
	add(apiKeySecrets(environment)...)
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for header := range strings.SplitSeq(environment[name], ",") {
			_, value, _ := strings.Cut(header, "=")
			value = strings.TrimSpace(value)
			decoded, _ := url.PathUnescape(value)
			add(value, decoded)
		}
	}
	for name, value := range environment {
		if strings.HasPrefix(name, "AFTERWRITE_DASHBOARD_") {
			add(bcryptHash.FindAllString(value, -1)...)
		}
	}
	return secrets
}

// apiKeySecrets returns the hashes of API keys, also in the wrong variable, and what may be a key where its hash should be.
func apiKeySecrets(environment map[string]string) []string {
	var secrets []string
	for entry := range strings.SplitSeq(environment["AFTERWRITE_API_KEYS"], ",") {
		if fields := strings.SplitN(entry, ":", 3); len(fields) > 1 && len(fields[1]) >= minSecret {
			secrets = append(secrets, strings.TrimSpace(fields[1]))
		}
	}
	for name, value := range environment {
		if strings.HasPrefix(name, "AFTERWRITE_API_") {
			secrets = append(secrets, apiKeyHash.FindAllString(value, -1)...)
			secrets = append(secrets, apiKey.FindAllString(value, -1)...)
		}
	}
	return secrets
}

// passwords returns the passwords in a URL or in key=value pairs. The URL may have several hosts, or be malformed.
func passwords(text string) []string {
	_, rest, found := strings.Cut(text, "://")
	if !found {
		matches := keyValuePassword.FindAllStringSubmatch(text, -1)
		all := make([]string, 0, 3*len(matches))
		for _, match := range matches {
			quoted := match[1]
			all = append(all, quoted, strings.ReplaceAll(strings.ReplaceAll(quoted, `\'`, `'`), `\\`, `\`), match[2])
		}
		return all
	}
	var all []string
	add := func(written string) {
		all = append(all, written)
		if decoded, err := url.PathUnescape(written); err == nil {
			all = append(all, decoded, url.QueryEscape(decoded), url.UserPassword("", decoded).String()[1:])
		}
	}
	// A password that is not encoded may contain @, / or ?, so it may end at the last @ of the URL. But the path may contain an @
	// too, so it may also end at the last @ before the path.
	add(userPassword(rest))
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		add(userPassword(rest[:end]))
	}
	if _, query, ok := strings.Cut(rest, "?"); ok {
		for pair := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if name == "password" || name == "sslpassword" || name == "sentinel_password" {
				add(value)
			}
		}
	}
	return all
}

// userPassword returns the text between the first colon and the last @.
func userPassword(text string) string {
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return ""
	}
	_, password, _ := strings.Cut(text[:at], ":")
	return password
}
