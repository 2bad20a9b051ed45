package cache

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed *.lua
var files embed.FS

// before is what stands before a script; before all others stands entry.lua.
var before = map[string][]string{
	"apply":   {"plain", "entry"},
	"release": nil,
}

// Scripts returns the texts of all scripts in a folder, by their names without .lua, each with what stands before it.
func Scripts(folder fs.FS) (map[string]string, error) {
	paths, err := fs.Glob(folder, "*.lua")
	if err != nil {
		return nil, fmt.Errorf("scripts: %w", err)
	}
	parts := make(map[string]string, len(paths))
	for _, path := range paths {
		text, err := fs.ReadFile(folder, path)
		if err != nil {
			return nil, fmt.Errorf("scripts: %w", err)
		}
		parts[strings.TrimSuffix(path, ".lua")] = string(text)
	}
	scripts := make(map[string]string, len(parts))
	for name, text := range parts {
		if name == "plain" || name == "entry" {
			continue
		}
		preludes, found := before[name]
		if !found {
			preludes = []string{"entry"}
		}
		for _, prelude := range slices.Backward(preludes) {
			text = parts[prelude] + text
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
)

// NewScript returns a script that begins with entry.lua, for package convert.
func NewScript(source string) *redis.Script {
	entry, err := files.ReadFile("entry.lua")
	if err != nil {
		panic(err) // it is in the binary
	}
	return redis.NewScript(string(entry) + source)
}

// ApplyScript returns the text of apply.lua with what stands before it, for the benchmark that measures it alone.
func ApplyScript() string { return scripts["apply"] }
