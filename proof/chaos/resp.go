package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/afterwrite/afterwrite/proof/world"
)

// variants is the number of values of request.variant. Both protocols draw it, so that the same seed gives the same load.
const variants = 12

const (
	// repeatMax bounds the repetitions of a command with an ID. Together they take longer than Redis is down.
	repeatMax = 25
	// repeatPause is the pause before a repetition.
	repeatPause = 150 * time.Millisecond
	dialTimeout = 2 * time.Second
)

// respClient sends requests over the Redis protocol: with go-redis, which does not retry here, and on connections of its own. A third
// of all writes has an ID (AW.IDEM). After an unknown outcome these are repeated, on the apis in turn, until the outcome is known.
type respClient struct {
	libraries []*redis.Client // one for each api
	raw       []*rawPool
	forms     *tally
	lastID    atomic.Int64
}

func newRESPClient(addrs []string, connections int, forms *tally) *respClient {
	c := &respClient{forms: forms}
	for i, addr := range addrs {
		c.libraries = append(c.libraries, redis.NewClient(&redis.Options{
			Addr: addr, Protocol: 2 + i%2, MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout, PoolSize: connections,
			ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, PoolTimeout: requestTimeout,
			ContextTimeoutEnabled: true, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}))
		c.raw = append(c.raw, newRawPool(addr, connections))
	}
	return c
}

func (c *respClient) close() {
	for i, library := range c.libraries {
		_ = library.Close()
		c.raw[i].close()
	}
}

// form is a way to send commands.
type form struct {
	name       string
	idempotent bool
	send       func(c *respClient, ctx context.Context, api int, commands [][]any) []result
}

// result is the reply to a command: nil, a string or an int64.
type result struct {
	reply any
	err   error
}

var (
	singleForms = []form{
		{"single", false, (*respClient).one},
		{"single, raw", false, (*respClient).onWire},
		{"single, idempotent", true, (*respClient).one},
	}
	batchForms = []form{
		{"pipeline", false, (*respClient).pipeline},
		{"pipeline, raw", false, (*respClient).onWire},
		{"pipeline, idempotent", true, (*respClient).onWire},
		{"transaction", false, (*respClient).transaction},
	}
)

func (c *respClient) do(ctx context.Context, api int, r request) answer {
	f := singleForms[r.variant%len(singleForms)]
	if len(r.steps) > 1 {
		f = batchForms[r.variant%len(batchForms)]
	}
	if r.steps[0].kind == stepGet {
		f = singleForms[r.variant%2] // reads have no ID
	}
	commands := make([][]any, len(r.steps))
	for i, s := range r.steps {
		if commands[i] = s.command(r.variant); f.idempotent {
			commands[i] = append([]any{"AW.IDEM", fmt.Sprintf("chaos-%d", c.lastID.Add(1))}, commands[i]...)
		}
	}
	results := f.send(c, ctx, api, commands)
	answers := make([]answer, len(results))
	for i, s := range r.steps {
		answers[i] = decodeReply(s.kind, results[i])
		name := f.name
		if f.idempotent && answers[i].outcome == indeterminate {
			answers[i] = c.repeat(ctx, api, s.kind, commands[i], answers[i])
			name += ", repeated"
		}
		if s.kind == stepGet {
			name = "read"
		}
		c.forms.add(name + ": " + outcomeName(answers[i]))
	}
	if len(answers) == 1 {
		return answers[0]
	}
	last := answers[len(answers)-1]
	return answer{outcome: last.outcome, reason: last.reason, results: answers}
}

// repeat sends a command with an ID again until its outcome is known. A refusal says nothing about the attempts before.
func (c *respClient) repeat(ctx context.Context, api int, kind stepKind, command []any, last answer) answer {
	for i := range repeatMax {
		if !pause(ctx, repeatPause) {
			break
		}
		a := decodeReply(kind, c.one(ctx, (api+i+1)%len(c.libraries), [][]any{command})[0])
		if a.outcome == acknowledged || unexpected(a) != "" {
			return a
		}
	}
	return last
}

// command returns the arguments of an operation.
func (s keyed) command(variant int) []any {
	switch {
	case s.kind == stepGet:
		return []any{"GET", s.key}
	case s.kind == stepSet:
		return []any{"SET", s.key, s.amount}
	case s.kind == stepDelete:
		return []any{"DEL", s.key}
	case s.amount == 1:
		return []any{"INCR", s.key}
	case variant%2 == 0:
		return []any{"DECRBY", s.key, -s.amount}
	}
	return []any{"INCRBY", s.key, s.amount}
}

// one sends one command with go-redis.
func (c *respClient) one(ctx context.Context, api int, commands [][]any) []result {
	reply, err := c.libraries[api].Do(ctx, commands[0]...).Result()
	return []result{{reply, err}}
}

// pipeline sends commands with go-redis.
func (c *respClient) pipeline(ctx context.Context, api int, commands [][]any) []result {
	return execute(ctx, c.libraries[api].Pipeline(), commands)
}

// transaction sends commands with go-redis between MULTI and EXEC.
func (c *respClient) transaction(ctx context.Context, api int, commands [][]any) []result {
	return execute(ctx, c.libraries[api].TxPipeline(), commands)
}

func execute(ctx context.Context, p redis.Pipeliner, commands [][]any) []result {
	sent := make([]*redis.Cmd, len(commands))
	for i, command := range commands {
		sent[i] = p.Do(ctx, command...)
	}
	_, failed := p.Exec(ctx)
	results := make([]result, len(commands))
	for i, command := range sent {
		results[i].reply, results[i].err = command.Result()
		if results[i].reply == nil && results[i].err == nil { // go-redis did not get as far
			results[i].err = failed
		}
	}
	return results
}

// onWire sends commands in a pipeline on a connection without a library.
func (c *respClient) onWire(ctx context.Context, api int, commands [][]any) []result {
	return c.raw[api].send(ctx, commands)
}

// decodeReply returns what a reply says about an operation.
func decodeReply(kind stepKind, r result) answer {
	done := answer{outcome: acknowledged, reason: "acknowledged"}
	number, isNumber := r.reply.(int64)
	switch {
	case r.err != nil && !errors.Is(r.err, redis.Nil):
		return decodeError(r.err)
	case kind == stepGet:
		return decodeValue(r)
	case kind == stepSet && r.reply == "OK", kind == stepDelete && isNumber:
		return done
	case kind == stepIncrement && isNumber:
		done.reading = &reading{number, unversioned}
		return done
	case kind == stepIncrement && r.reply == nil:
		done.reason = "acknowledged, value unknown"
		return done
	}
	return strange(r)
}

// decodeValue is decodeReply for a read.
func decodeValue(r result) answer {
	if r.reply == nil {
		return answer{outcome: refused, reason: "not_found", missing: true}
	}
	text, _ := r.reply.(string)
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return strange(r)
	}
	return answer{outcome: acknowledged, reason: "acknowledged", reading: &reading{value, unversioned}}
}

// strange is the answer for a reply that an operation must not get.
func strange(r result) answer {
	return answer{outcome: indeterminate, reason: fmt.Sprintf("unexpected reply %#v, %v", r.reply, r.err)}
}

// decodeError derives the outcome from an error, as docs/redis-protocol.md says.
func decodeError(err error) answer {
	if _, replied := errors.AsType[redis.Error](err); !replied {
		return unanswered(err)
	}
	prefix, detail, _ := strings.Cut(err.Error(), " ")
	code, _, _ := strings.Cut(detail, ":")
	o, expected := world.OutcomeOf(code)
	switch prefix {
	case "TRYAGAIN", "OOM", "ERR":
		expected = expected && o == refused
	case "UNKNOWN", "NOTDURABLE":
		expected = expected && o == indeterminate
	default:
		expected = false
	}
	if !expected {
		return answer{outcome: indeterminate, reason: fmt.Sprintf("unexpected %q", err.Error())}
	}
	return answer{outcome: o, reason: prefix + " " + code}
}

// outcomeName returns the outcome for the report.
func outcomeName(a answer) string {
	switch {
	case a.outcome == acknowledged, a.missing:
		return "acknowledged"
	case a.outcome == refused:
		return "not applied"
	default:
		return "unknown"
	}
}
