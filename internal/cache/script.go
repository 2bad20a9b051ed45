package cache

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

//go:embed *.lua
var files embed.FS

const entryFile, historyFile, plainFile = "entry", "history", "plain"

// preludes are the files that are prepended to a script. entry.lua is prepended to all others.
var preludes = map[string][]string{
	"apply":     {plainFile, entryFile},
	"hydrate":   {entryFile, historyFile},
	"reconcile": {entryFile, historyFile},
	"discard":   {entryFile, historyFile},
	"records":   nil,
	"trim":      nil,
	"stray":     nil,
	"release":   nil,
}

// parts are files that are only prepended.
var parts = []string{plainFile, entryFile, historyFile}

// Scripts returns the texts of all scripts in a folder, by their names without .lua, each with its preludes.
func Scripts(folder fs.FS) (map[string]string, error) {
	paths, err := fs.Glob(folder, "*.lua")
	if err != nil {
		return nil, fmt.Errorf("scripts: %w", err)
	}
	files := make(map[string]string, len(paths))
	for _, path := range paths {
		text, err := fs.ReadFile(folder, path)
		if err != nil {
			return nil, fmt.Errorf("scripts: %w", err)
		}
		files[strings.TrimSuffix(path, ".lua")] = string(text)
	}
	scripts := make(map[string]string, len(files))
	for name, text := range files {
		if slices.Contains(parts, name) {
			continue
		}
		before, found := preludes[name]
		if !found {
			before = []string{entryFile}
		}
		for _, prelude := range slices.Backward(before) {
			text = files[prelude] + text
		}
		scripts[name] = text
	}
	return scripts, nil
}

var scripts = func() map[string]string {
	all, err := Scripts(files)
	if err != nil {
		panic(err) // they are in the binary
	}
	return all
}()

var (
	applyScript     = redis.NewScript(scripts["apply"])
	checkScript     = redis.NewScript(scripts["check"])
	hydrateScript   = redis.NewScript(scripts["hydrate"])
	sealScript      = redis.NewScript(scripts["seal"])
	commitScript    = redis.NewScript(scripts["commit"])
	releaseScript   = redis.NewScript(scripts["release"])
	asideScript     = redis.NewScript(scripts["aside"])
	settleScript    = redis.NewScript(scripts["settle"])
	requeueScript   = redis.NewScript(scripts["requeue"])
	reconcileScript = redis.NewScript(scripts["reconcile"])
	evictScript     = redis.NewScript(scripts["evict"])
	repairScript    = redis.NewScript(scripts["repair"])
	discardScript   = redis.NewScript(scripts["discard"])
	recordsScript   = redis.NewScript(scripts["records"])
	trimScript      = redis.NewScript(scripts["trim"])
	strayScript     = redis.NewScript(scripts["stray"])
)

// NewScript returns a script that begins with entry.lua, for package convert.
func NewScript(source string) *redis.Script {
	entry, err := files.ReadFile("entry.lua")
	if err != nil {
		panic(err) // it is in the binary
	}
	return redis.NewScript(string(entry) + source)
}

// call is a script call that is sent in a pipeline.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
	cmd    *redis.Cmd
}

func (c *call) queue(ctx context.Context, pipe redis.Pipeliner) {
	c.cmd = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
}

// reply returns the answer, after the pipeline has been sent. If a node does not have the script yet, reply sends the call again with the
// script's text.
func (c *call) reply(ctx context.Context, client redis.Scripter) *redis.Cmd {
	if redis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") {
		return c.script.Eval(ctx, client, c.keys, c.args...)
	}
	return c.cmd
}

// send sends a pipeline and returns the first error of its commands. If Redis refuses the connection itself (a wrong password, say),
// go-redis sets no error on the individual commands, so each would seem to be answered with 0: send sets the error.
func send(ctx context.Context, pipe redis.Pipeliner) error {
	commands, err := pipe.Exec(ctx)
	if err != nil && !slices.ContainsFunc(commands, func(c redis.Cmder) bool { return c.Err() != nil }) {
		for _, c := range commands {
			c.SetErr(err)
		}
	}
	return err
}

// texts and members convert keys for the client.
func texts(keys []counter.Key) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		out[i] = string(key)
	}
	return out
}

func members(keys []counter.Key) []any {
	out := make([]any, len(keys))
	for i, key := range keys {
		out[i] = string(key)
	}
	return out
}

// keysOf is the reverse of texts.
func keysOf(texts []string) []counter.Key {
	keys := make([]counter.Key, len(texts))
	for i, text := range texts {
		keys[i] = counter.Key(text)
	}
	return keys
}
