package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Variable describes an environment variable. It is read from the tags of a field of Config.
type Variable struct {
	Name    string
	Default string
	Allowed string // its allowed values; "" if there is no limit
	Help    string // its meaning
	Since   string // the first version that reads it

	example string
	field   reflect.StructField
}

// firstVersion is the default of Since.
const firstVersion = "0.1"

// Variables returns every variable, in the order in which help and documents list them.
func Variables() []Variable {
	var all []Variable
	for field := range reflect.TypeFor[Config]().Fields() {
		tag := field.Tag.Get
		if tag("env") == "" {
			continue
		}
		v := Variable{
			Name: tag("env"), Default: tag("envDefault"), Allowed: tag("allowed"), Help: tag("help"), Since: tag("since"),
			example: tag("example"), field: field,
		}
		if v.Since == "" {
			v.Since = firstVersion
		}
		if v.example == "" {
			v.example = v.Default
		}
		if field.Type.Kind() == reflect.Bool {
			v.Allowed = "true or false"
		}
		all = append(all, v)
	}
	return all
}

// mistake returns the error for a variable whose value, given, is not allowed.
func (v Variable) mistake(given string) error {
	kind := ""
	switch {
	case v.field.Type == reflect.TypeFor[time.Duration]():
		kind = "a duration of "
	case v.field.Type.Kind() == reflect.Int, v.field.Type.Kind() == reflect.Int64:
		kind = "a whole number of "
	}
	if strings.Contains(v.Allowed, "|") {
		kind = "one of "
	}
	return fmt.Errorf("%s must be %s%s, such as %s; it is %q", v.Name, kind, v.Allowed, v.example, given)
}

// unreadable converts an error of package env, which has one error for each variable that it cannot parse.
func unreadable(err error, environment map[string]string) error {
	aggregate, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return fmt.Errorf("read the environment: %w", err)
	}
	variables := Variables()
	var errs []error
	for _, err := range aggregate.Errors {
		parse, _ := errors.AsType[env.ParseError](err)
		i := slices.IndexFunc(variables, func(v Variable) bool { return v.field.Name == parse.Name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("read the environment: %w", err))
			continue
		}
		errs = append(errs, variables[i].mistake(environment[variables[i].Name]))
	}
	return errors.Join(errs...)
}

var (
	numberBounds = regexp.MustCompile(`^(\S+) to (\S+)$`)
	namespace    = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	schema       = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
)

// validate checks the value of each variable.
func (c Config) validate(environment map[string]string) error {
	var errs []error
	for _, v := range Variables() {
		value := reflect.ValueOf(c).FieldByIndex(v.field.Index)
		if !v.allows(value) {
			errs = append(errs, v.mistake(environment[v.Name]))
		}
	}
	errs = append(errs, secret("AFTERWRITE_ADMIN_TOKEN", c.AdminToken))
	if c.APIKeys != "" && c.APIKeysFile != "" {
		errs = append(errs, errors.New("AFTERWRITE_API_KEYS and AFTERWRITE_API_KEYS_FILE are both set: set one of them"))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("AFTERWRITE_TLS_CERT and AFTERWRITE_TLS_KEY belong together: set both or none"))
	}
	if (c.RedisCert == "") != (c.RedisKey == "") {
		errs = append(errs, errors.New("AFTERWRITE_REDIS_CERT and AFTERWRITE_REDIS_KEY belong together: set both or none"))
	}
	return errors.Join(errs...)
}

// allows reports whether the variable may have value.
func (v Variable) allows(value reflect.Value) bool {
	switch {
	case value.CanInt():
		bounds := numberBounds.FindStringSubmatch(v.Allowed)
		return value.Int() >= v.number(bounds[1]) && value.Int() <= v.number(bounds[2])
	case value.Kind() != reflect.String:
		return true
	case v.Allowed == "host:port" && v.Default == "" && value.String() == "": // off
		return true
	case v.Allowed == "host:port":
		_, _, err := net.SplitHostPort(value.String())
		return err == nil
	case strings.Contains(v.Allowed, "|"):
		return slices.Contains(strings.Split(v.Allowed, "|"), value.String())
	case v.field.Name == "CORSOrigins":
		return validOrigins(value.String())
	case v.field.Name == "History":
		_, err := counter.ParsePatterns(value.String())
		return err == nil
	case v.field.Name == "Namespace":
		return value.String() == "" || namespace.MatchString(value.String())
	case v.field.Name == "Schema":
		return schema.MatchString(value.String()) && !strings.HasPrefix(value.String(), "pg_") // reserved by Postgres
	}
	return true
}

// validOrigins reports whether list is "*", or has only origins as browsers send them: a scheme, a host and perhaps a port.
func validOrigins(list string) bool {
	for _, origin := range Words(list) {
		u, err := url.Parse(origin)
		switch {
		case list == "*":
		case err != nil, u.Host == "", origin != u.Scheme+"://"+u.Host, origin != strings.ToLower(origin), strings.Contains(origin, "*"):
			return false
		}
	}
	return true
}

// Words splits a list at its commas and spaces.
func Words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// number parses a bound. A test checks that all bounds can be parsed.
func (v Variable) number(text string) int64 {
	if v.field.Type == reflect.TypeFor[time.Duration]() {
		d, _ := time.ParseDuration(text)
		return int64(d)
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// minSecret is the length of the shortest secret: 16 random letters and digits have 95 bits, far more than a word.
const minSecret = 16

// secret checks a token that is sent in a header. Its errors do not show the token.
func secret(name, value string) error {
	if value == "" {
		return nil
	}
	if len(value) < minSecret {
		return fmt.Errorf("%s must have at least %d characters, such as the output of `openssl rand -hex 16`; it has %d",
			name, minSecret, len(value))
	}
	for _, r := range value {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("%s must have only visible ASCII characters and no spaces", name)
		}
	}
	return nil
}
