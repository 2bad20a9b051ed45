package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// keyValuePassword finds the password in lib/pq's key=value form, in quotes or without.
var keyValuePassword = regexp.MustCompile(`(?i)\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))`)

// everyday are passwords that are words of the logs themselves, like those of docker-compose.yml. They, and those of fewer bytes
// than minSecretBytes, are looked for only where a password stands: else hardly a line would be left whole.
var everyday = []string{"afterwrite", "password", "postgres", "redis", "default"}

const minSecretBytes = 4

// bcryptHash finds the hash of a password in a list of users, also in one that a shell has bitten into.
var bcryptHash = regexp.MustCompile(`\$2[a-z]?\$[^,:\s]+`)

// Secrets returns what no log may show of an environment: the passwords in the URLs, as they are written there and as they are sent, the
// token of the operators, the headers that open the collector of traces, and the hashes of the dashboard's users, in whichever of its
// variables they were put. None is empty.
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
	for _, name := range []string{"REDIS_URL", "DATABASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		add(passwords(environment[name])...)
	}
	add(environment["AFTERWRITE_ADMIN_TOKEN"], environment["PGPASSWORD"])
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

// passwords finds those of an URL, also of one with a list of hosts, or one that package url cannot read, and of key=value pairs.
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
	// To the last @: a password that somebody forgot to encode may hold one, or a slash, or a question mark. And to the last before
	// the path, since an @ may be in what follows it.
	add(userPassword(rest))
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		add(userPassword(rest[:end]))
	}
	if _, query, ok := strings.Cut(rest, "?"); ok {
		for pair := range strings.SplitSeq(query, "&") {
			if name, value, _ := strings.Cut(pair, "="); name == "password" || name == "sslpassword" {
				add(value)
			}
		}
	}
	return all
}

// userPassword is what stands between the first colon and the last @.
func userPassword(text string) string {
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return ""
	}
	_, password, _ := strings.Cut(text[:at], ":")
	return password
}
