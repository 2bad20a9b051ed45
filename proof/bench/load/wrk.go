package load

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

// find returns the path of a program in PATH. The error names the Debian package with the program.
func find(program, debianPackage string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %s is not in PATH: run `deploy/setup.sh bench`, or install the package %s",
			local.ErrNotInstalled, program, debianPackage)
	}
	return path, nil
}

// wrap prefixes an error with the name of a tool.
func wrap(err *error, name string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", name, *err)
	}
}

//go:embed wrk.lua
var wrkScript string

// wrkSlack is the time limit for filling wrk's tables and for ending it, in addition to the load.
const wrkSlack = 20 * time.Second

// HTTPResult is the result of WRK.
type HTTPResult struct {
	Requests  int64 // number of answers
	Failed    int64 // number of answers with a status of 400 or more, plus errors and timeouts of connections
	Seconds   float64
	PerSecond float64 // rate of answers with a status below 400; a batch counts as one
	P50       time.Duration
	P99       time.Duration
}

// WRK loads a server for spec.Duration, rounded up to whole seconds. Each connection sends one request after the other. WRK does not
// count requests in flight at the end, at most one for each connection; the server may have executed them.
func WRK(ctx context.Context, spec HTTPSpec) (result HTTPResult, err error) {
	defer wrap(&err, "wrk")
	program, err := find("wrk", "wrk")
	if err != nil {
		return HTTPResult{}, err
	}
	script, err := os.CreateTemp("", "afterwrite-wrk-*.lua") // wrk needs a file name
	if err != nil {
		return HTTPResult{}, err
	}
	defer func() { _ = os.Remove(script.Name()) }()
	_, err = script.WriteString(wrkScript)
	if err := errors.Join(err, script.Close()); err != nil {
		return HTTPResult{}, err
	}

	seconds := int64((spec.Duration + time.Second - 1) / time.Second)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+wrkSlack)
	defer cancel()
	out, err := local.Program{Path: program, Args: []string{
		"-t", "2", "-c", strconv.Itoa(spec.Connections), "-d", strconv.FormatInt(seconds, 10) + "s",
		"--timeout", "10s", "-s", script.Name(), spec.URL, "--",
		fmt.Sprintf("keys=%s", spec.Keys), fmt.Sprintf("space=%d", spec.Space), fmt.Sprintf("batch=%d", spec.Batch),
		fmt.Sprintf("form=%s", spec.Form), fmt.Sprintf("seed=%d", spec.Seed%(1<<31)),
		"apikey=" + spec.APIKey,
	}}.Output(ctx)
	if err != nil {
		return HTTPResult{}, err
	}
	return parseWRK(out)
}

var wrkLine = regexp.MustCompile(`(?m)^result (.*)$`)

// parseWRK parses the line that the function done in wrk.lua prints.
func parseWRK(out string) (HTTPResult, error) {
	line := wrkLine.FindStringSubmatch(out)
	if line == nil {
		return HTTPResult{}, fmt.Errorf("no result in the output: %s", strings.TrimSpace(out))
	}
	fields := make(map[string]int64)
	for field := range strings.FieldsSeq(line[1]) {
		name, text, _ := strings.Cut(field, "=")
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return HTTPResult{}, fmt.Errorf("cannot parse the result: %w", err)
		}
		fields[name] = number
	}
	if fields["us"] <= 0 {
		return HTTPResult{}, fmt.Errorf("the measured time is not positive: %s", line[0])
	}
	seconds := float64(fields["us"]) / 1e6
	return HTTPResult{
		Requests:  fields["requests"],
		Failed:    fields["status"] + fields["connect"] + fields["read"] + fields["write"] + fields["timeout"],
		Seconds:   seconds,
		PerSecond: float64(fields["requests"]-fields["status"]) / seconds,
		P50:       time.Duration(fields["p50"]) * time.Microsecond,
		P99:       time.Duration(fields["p99"]) * time.Microsecond,
	}, nil
}
