package cache

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// The scripts; entry.lua stands before all but release.lua.
var (
	//go:embed entry.lua
	entrySource string
	//go:embed apply.lua
	applySource string
	//go:embed hydrate.lua
	hydrateSource string
	//go:embed seal.lua
	sealSource string
	//go:embed commit.lua
	commitSource string
	//go:embed release.lua
	releaseSource string
	//go:embed aside.lua
	asideSource string
	//go:embed settle.lua
	settleSource string
	//go:embed requeue.lua
	requeueSource string
	//go:embed reconcile.lua
	reconcileSource string
	//go:embed evict.lua
	evictSource string
	//go:embed repair.lua
	repairSource string
	//go:embed discard.lua
	discardSource string

	applyScript     = redis.NewScript(entrySource + applySource)
	hydrateScript   = redis.NewScript(entrySource + hydrateSource)
	sealScript      = redis.NewScript(entrySource + sealSource)
	commitScript    = redis.NewScript(entrySource + commitSource)
	releaseScript   = redis.NewScript(releaseSource)
	asideScript     = redis.NewScript(entrySource + asideSource)
	settleScript    = redis.NewScript(entrySource + settleSource)
	requeueScript   = redis.NewScript(entrySource + requeueSource)
	reconcileScript = redis.NewScript(entrySource + reconcileSource)
	evictScript     = redis.NewScript(entrySource + evictSource)
	repairScript    = redis.NewScript(entrySource + repairSource)
	discardScript   = redis.NewScript(entrySource + discardSource)
)

// NewScript returns a script that begins with entry.lua, for package convert.
func NewScript(source string) *redis.Script { return redis.NewScript(entrySource + source) }

// ApplyScript returns the text of apply.lua and of what stands before it, for the benchmark that measures it alone.
func ApplyScript() string { return entrySource + applySource }
