package config

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Variable is an environment variable, as the tags of its field describe it.
type Variable struct {
	Name    string
	Default string
	Takes   string // its bounds; "" where there are none
	Help    string // what it means
	Since   string // the first version that reads it

	like  string // an example
	field reflect.StructField
}

// firstVersion is the Since of what has always been there.
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
			Name: tag("env"), Default: tag("envDefault"), Takes: tag("takes"), Help: tag("help"), Since: tag("since"),
			like: tag("like"), field: field,
		}
		if v.Since == "" {
			v.Since = firstVersion
		}
		if v.like == "" {
			v.like = v.Default
		}
		if field.Type.Kind() == reflect.Bool {
			v.Takes = "true or false"
		}
		all = append(all, v)
	}
	return all
}

// mistake returns the error for a variable that holds given.
func (v Variable) mistake(given string) error {
	kind := ""
	switch {
	case v.field.Type == reflect.TypeFor[time.Duration]():
		kind = "a duration of "
	case v.field.Type.Kind() == reflect.Int, v.field.Type.Kind() == reflect.Int64:
		kind = "a whole number of "
	}
	return fmt.Errorf("%s is %q: it takes %s%s, like %s", v.Name, given, kind, v.Takes, v.like)
}

// unreadable returns what is wrong with the variables that err, of package env, is about.
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

// validate checks what c holds against the bounds of each variable.
func (c Config) validate(environment map[string]string) error {
	var errs []error
	for _, v := range Variables() {
		value := reflect.ValueOf(c).FieldByIndex(v.field.Index)
		if !v.allows(value) {
			errs = append(errs, v.mistake(environment[v.Name]))
		}
	}
	return errors.Join(append(errs, secret("AFTERWRITE_ADMIN_TOKEN", c.AdminToken))...)
}

// allows reports whether value is within the bounds of the variable.
func (v Variable) allows(value reflect.Value) bool {
	switch {
	case value.CanInt():
		bounds := numberBounds.FindStringSubmatch(v.Takes)
		return value.Int() >= v.number(bounds[1]) && value.Int() <= v.number(bounds[2])
	case value.Kind() != reflect.String:
		return true
	case v.Takes == "host:port":
		_, _, err := net.SplitHostPort(value.String())
		return err == nil
	case strings.Contains(v.Takes, "|"):
		return slices.Contains(strings.Split(v.Takes, "|"), value.String())
	case v.field.Name == "Namespace":
		return value.String() == "" || namespace.MatchString(value.String())
	case v.field.Name == "Schema":
		return schema.MatchString(value.String()) && !strings.HasPrefix(value.String(), "pg_") // those are Postgres's own
	}
	return true
}

// number reads a bound; a test sees to it that all can be read.
func (v Variable) number(text string) int64 {
	if v.field.Type == reflect.TypeFor[time.Duration]() {
		d, _ := time.ParseDuration(text)
		return int64(d)
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// minSecret is the shortest secret: 16 random letters and digits are 95 bits, and no word has as many.
const minSecret = 16

// secret checks a token without showing it: none, or one that fits in a header as it is.
func secret(name, value string) error {
	if value == "" {
		return nil
	}
	if len(value) < minSecret {
		return fmt.Errorf("%s has %d characters: it takes at least %d, like those of `openssl rand -hex 16`", name, len(value), minSecret)
	}
	for _, r := range value {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("%s has a character that is not visible ASCII: it takes letters, digits and the like, and no spaces", name)
		}
	}
	return nil
}
