package main

// mutant is a rule of the design, broken on purpose: by one change or several.
type mutant struct {
	name    string
	changes []change
	checks  int  // runs of the machine, if it takes more than -checks to notice
	rule    bool // `make mutants` tries it: a whole rule, which is noticed within some runs
}

// change is a change of the line with the marker of a step:
//
//	join(s, open, keys) -- step: join      in a .lua file, and
//	if err != nil { // step: failed        in a .go file; or in a line of its own above
type change struct {
	file, step string
	how        func(line string) (changed string, ok bool)
}

const (
	plain     = "internal/cache/plain.lua"
	apply     = "internal/cache/apply.lua"
	entry     = "internal/cache/entry.lua"
	seal      = "internal/cache/seal.lua"
	commit    = "internal/cache/commit.lua"
	aside     = "internal/cache/aside.lua"
	settle    = "internal/cache/settle.lua"
	requeue   = "internal/cache/requeue.lua"
	hydrate   = "internal/cache/hydrate.lua"
	reconcile = "internal/cache/reconcile.lua"
	evict     = "internal/cache/evict.lua"
	discard   = "internal/cache/discard.lua"
	combine   = "internal/cache/apply.go"
	evictGo   = "internal/cache/evict.go"
	upsert    = "internal/store/upsert.go"
	drain     = "worker/epoch.go"
	flusher   = "worker/flusher.go"
	refusal   = "worker/refusal.go"
	repairGo  = "worker/reconcile.go"
)

func one(file, step string, how func(string) (string, bool)) []change {
	return []change{{file, step, how}}
}

// mutants are all rules and steps that the guarantees depend on.
func mutants() []mutant {
	var all []mutant
	for _, part := range [][]mutant{writing(), flushing(), settingAside(), hydrating(), reconciling(), evicting()} {
		all = append(all, part...)
	}
	return all
}

func writing() []mutant {
	return []mutant{
		{
			name:    "R2: a write does not put its key into the open epoch",
			changes: one(plain, "join", becomes(`call\(.*\)`, `0`)),
			rule:    true,
		},
		{
			name:    "R2: an unusual write does not put its key into the open epoch",
			changes: one(apply, "join others", removed),
		},
		{
			name:    "apply: the first write after a restart opens no epoch",
			changes: one(entry, "restart", becomes(`if .* then`, `if not s.open then`)),
		},
		{
			name:    "apply: a restart does not count as a new incarnation",
			changes: one(entry, "first", becomes(`s\.first_id, (.*) = s\.open,`, `s.first_id, $1 = s.first_id or s.open,`)),
		},
		{name: "apply: a run of writes goes on after a restart", changes: one(apply, "end lineage", never)},
		{
			name:    "plain: a run of writes goes on after a restart",
			changes: one(plain, "sealed", becomes(`lineage and .* then`, `lineage then`)),
		},
		{
			name:    "plain: a clean key begins a run of writes at an old base",
			changes: one(plain, "begin", becomes(`' b' .. n`, `' b' .. (n - 1)`)),
		},
		{
			name:    "apply: a new run of writes begins at the base of the last",
			changes: one(apply, "begin", becomes(`e\.l, .*`, `e.l, e.b, e.w = s.open, e.b or '0', e.w or '0'`)),
		},
		{name: "apply: a run forgets that the value was set in it", changes: one(apply, "set", never)},
		{name: "apply: an operation with an ID is carried out again", changes: one(apply, "replay", removed)},
		{
			name:    "apply.go: the versions of combined increments are off by one",
			changes: one(combine, "split", becomes(`int64\(s\.writes\)`, `int64(s.writes-1)`)),
		},
		{
			name:    "apply.go: the values of combined increments are off",
			changes: one(combine, "split", becomes(`o\.Value-s\.sum`, `o.Value`)),
		},
		{
			name:    "apply.go: a combined increment is not added up",
			changes: one(combine, "sum", becomes(`next\.Amount`, `0*next.Amount`)),
		},
	}
}

func flushing() []mutant {
	return []mutant{
		{name: "R3: no guard", changes: one(upsert, "guard", becomes("WHERE .*`", "`")), rule: true},
		{
			name:    "R3: the guard looks at versions only",
			changes: one(upsert, "guard", becomes(`CASE .* END`, `EXCLUDED.version`)),
		},
		{name: "seal: what was sealed before is not flushed first", changes: one(seal, "found", always)},
		{name: "seal: the open epoch keeps the ID of the sealed one", changes: one(seal, "renew", removed)},
		{
			name:    "commit: no check of the sealed epoch's ID",
			changes: one(commit, "check", becomes(`s\.sealed ~= ARGV\[1\]`, `s.sealed == '0'`)),
			rule:    true,
		},
		{name: "commit: no check of the incarnation", changes: one(commit, "incarnation", removed), rule: true},
		{
			name:    "commit: the watermark passes the open epoch too",
			changes: one(commit, "watermark", becomes(`= s\.sealed,`, `= s.open,`)),
			rule:    true,
		},
		{
			name:    "drain: commits an epoch although a part of it failed",
			changes: one(drain, "failed", becomes(`return failed`, ``)),
		},
	}
}

func settingAside() []mutant {
	return []mutant{
		{
			name:    "R6: an epoch is committed although a refused key was not set aside",
			changes: one(refusal, "set aside", becomes(`r\.setAside\(.*\);`, `error(nil);`)),
			rule:    true,
		},
		{name: "R6: the same for a locked row", changes: one(flusher, "deferred", becomes(`keys,`, `keys[:0],`))},
		{name: "aside: the entry does not say so", changes: one(aside, "flag", becomes(`true`, `nil`))},
		{
			name:    "aside: an entry that is set aside counts as clean",
			changes: one(entry, "dirty", becomes(`e\.a or `, ``)),
		},
		{
			name:    "settle: without comparing",
			changes: one(settle, "compare", becomes(`e and text == .* then`, `e then`)),
		},
		{
			name:    "settle: a clean key keeps its old epoch",
			changes: one(settle, "clean", becomes(`epoch = '0'`, `epoch = e.epoch`)),
		},
		{
			name:    "settle: a written key keeps its old epoch",
			changes: one(settle, "written", becomes(`e\.a, e\.epoch = nil, s\.open`, `e.a = nil`)),
		},
		{name: "settle: the number of a run of writes is used twice", changes: one(settle, "renew", removed)},
		{
			name:    "requeue: a key keeps its old epoch",
			changes: one(requeue, "epoch", becomes(`e\.a, e\.epoch = nil, s\.open`, `e.a = nil`)),
		},
		{name: "requeue: a write goes on in a run that a restart ended", changes: one(requeue, "renew", removed)},
		{name: "requeue: a key does not join the open epoch", changes: one(requeue, "join", removed)},
		{
			name:    "requeue: those who wait are not told",
			changes: one(entry, "requeued", becomes(`s\.requeued, s\.changed = s\.open, true`, `s.changed = true`)),
		},
		{name: "discard: without comparing", changes: one(discard, "compare", removed)},
		{name: "discard: what was read before may be hydrated", changes: one(discard, "renew", removed)},
	}
}

func hydrating() []mutant {
	return []mutant{
		{name: "hydrate: no check of the token", changes: one(hydrate, "token", never), rule: true},
		{
			name:    "hydrate: the token is without the watermark",
			changes: one(hydrate, "fresh", becomes(`ARGV\[1\] == .*`, `sub(ARGV[1], -#s.open) == s.open`)),
		},
		{
			name:    "hydrate: the token is without the open epoch",
			changes: one(hydrate, "fresh", becomes(`ARGV\[1\] == .*`, `match(ARGV[1], '^%w+') == s.watermark_id`)),
		},
		{name: "rebase: ended runs of writes are counted twice", changes: one(hydrate, "ended lineages", never)},
		{
			name:    "rebase: an entry from before a restart takes the short way",
			changes: one(hydrate, "of this incarnation", becomes(`number_of < s\.first or number_of == lineage`, `false`)),
		},
		{
			name:    "rebase: ended runs of writes are forgotten",
			changes: one(hydrate, "keep", becomes(`e\.p = .*`, `e.p = nil`)),
		},
	}
}

func reconciling() []mutant {
	return []mutant{
		{name: "reconcile: left out", changes: one(repairGo, "reconcile", always), rule: true},
		{
			name:    "reconcile: the base is not taken away",
			changes: one(reconcile, "base", becomes(`sum\(v, value, had\)`, `sum(v, value)`)),
		},
		{name: "reconcile: ended runs of writes are counted twice", changes: one(reconcile, "ended lineages", removed)},
		{
			name:    "reconcile: ended runs of writes are forgotten",
			changes: one(reconcile, "keep", becomes(`e\.p = .*`, `e.p = nil`)),
		},
		{
			name:    "reconcile: an entry that has moved on is changed",
			changes: one(reconcile, "compare", becomes(` or e\.l ~= .* then`, ` then`)),
		},
		{name: "reconcile: a later row of the same life is not adopted", changes: one(reconcile, "adopted", never)},
		{name: "adopt: the number of a run of writes is used twice", changes: one(reconcile, "adopt", removed)},
	}
}

func evicting() []mutant {
	return []mutant{
		{name: "R8: a dirty entry is evicted", rule: true, changes: []change{
			{evict, "check", becomes(`number\(epoch\) <= watermark and `, ``)},
			{evictGo, "dirty", becomes(`e\.Dirty\(snapshot\.Watermark\)`, `e.Aside`)},
		}},
		{name: "R8: an entry that is set aside is evicted", changes: []change{
			{evict, "check", becomes(`not find\(.*, true\) and `, ``)},
			{evictGo, "dirty", becomes(`e\.Dirty\(snapshot\.Watermark\)`, `e.Epoch > snapshot.Watermark`)},
		}},
		{
			name:    "evict: an entry that was written since it was read",
			changes: one(evict, "check", becomes(`number\(epoch\) <= .* then`, `true then`)),
		},
	}
}
