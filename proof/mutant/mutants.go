package main

import "slices"

// mutant is a broken copy of the code: it breaks a rule of the design, or a part of one.
type mutant struct {
	name    string
	changes []change
	rule    bool   // it breaks a whole rule, so `make mutants` tries it
	by      string // the package whose tests must fail; "" for the machine
	tests   string // their names: a regular expression
}

// change modifies the line that a marker comment names, at the end of the line or alone in the line above:
//
//	join(s, open, keys) -- step: join      in a .lua file
//	if err != nil { // step: failed        in a .go file
type change struct {
	file, step string
	how        edit
}

// edit returns a modified line. It returns false if the line does not have the expected form.
type edit func(line string) (changed string, ok bool)

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
	check     = "internal/cache/check.lua"
	reconcile = "internal/cache/reconcile.lua"
	evict     = "internal/cache/evict.lua"
	discard   = "internal/cache/discard.lua"
	renumber  = "internal/cache/history.lua"
	trim      = "internal/cache/trim.lua"
	combine   = "internal/cache/apply.go"
	evictGo   = "internal/cache/evict.go"
	upsert    = "internal/store/upsert.go"
	unlocked  = "internal/store/unlocked.go"
	columns   = "internal/store/columns.go"
	first     = "internal/store/firstflush.go"
	mapped    = "internal/store/mapped.go"
	drain     = "worker/epoch.go"
	flusher   = "worker/flusher.go"
	refusal   = "worker/refusal.go"
	durable   = "internal/cache/durable.go"
	resend    = "internal/cache/resend.go"
	watched   = "internal/cache/watched.go"
	repairGo  = "worker/reconcile.go"
	rebase    = "worker/rebase.go"
)

// rule breaks a whole rule by one change.
func rule(name, file, step string, how edit) mutant {
	return mutant{name: name, changes: []change{{file, step, how}}, rule: true}
}

// part breaks a part of a rule by one change.
func part(name, file, step string, how edit) mutant {
	return mutant{name: name, changes: []change{{file, step, how}}}
}

// tested breaks a rule that the machine does not cover. The named tests of a package must notice it.
func tested(name, file, step string, how edit, by, tests string) mutant {
	return mutant{name: name, changes: []change{{file, step, how}}, rule: true, by: by, tests: tests}
}

// mutants returns a mutant for each rule and step that the guarantees depend on.
func mutants() []mutant {
	return slices.Concat(writing(), flushing(), settingAside(), hydrating(), checking(), reconciling(), recording(), evicting(),
		mapping(), confirming(), following())
}

func writing() []mutant {
	return []mutant{
		rule("R2: a write does not put its key into the open epoch", plain, "join", becomes(`call\(.*\)`, `0`)),
		part("R2: a write by apply.lua does not put its key into the open epoch", apply, "join others", removed),
		part("apply: the first write after a restart opens no epoch", entry, "restart", becomes(`if .* then`, `if not s.open then`)),
		part("apply: a restart does not count as a new incarnation", entry, "first",
			becomes(`s\.first_id, (.*) = s\.open,`, `s.first_id, $1 = s.first_id or s.open,`)),
		part("apply: a lineage continues after a restart", apply, "end lineage", never),
		part("plain: a lineage continues after a restart", plain, "sealed", becomes(`lineage and .* then`, `lineage then`)),
		part("plain: a clean key starts a lineage with an old base", plain, "begin", becomes(`' b' .. n`, `' b' .. (n - 1)`)),
		part("apply: a new lineage starts with the base of the last", apply, "begin",
			becomes(`e\.l, .*`, `e.l, e.b, e.w = s.open, e.b or '0', e.w or '0'`)),
		part("apply: a lineage forgets that the value was set", apply, "set", never),
		part("apply: an operation with an ID is applied twice", apply, "replay", removed),
		rule("bounds are not checked", apply, "bounds", never),
		rule("a version is not compared", apply, "version", never),
		part("apply.go: the versions of combined increments are off by one", combine, "split",
			becomes(`-s\.count`, `-s.count+1`)),
		part("apply.go: the values of combined increments are wrong", combine, "split", becomes(`o\.Value-s\.sum`, `o.Value`)),
		part("apply.go: combined increments are not added up", combine, "sum", becomes(`next\.Amount`, `0*next.Amount`)),
	}
}

func flushing() []mutant {
	return []mutant{
		rule("R3: no guard", upsert, "guard", becomes("WHERE .*`", "`")),
		part("R3: the guard compares only versions", upsert, "guard", becomes(`CASE .* END`, `EXCLUDED.version`)),
		part("seal: an epoch that is already sealed is not flushed first", seal, "found", always),
		part("seal: the open epoch keeps the ID of the sealed one", seal, "renew", removed),
		rule("commit: no check of the sealed epoch's ID", commit, "check", becomes(`s\.sealed ~= ARGV\[1\]`, `s.sealed == '0'`)),
		rule("commit: no check of the incarnation", commit, "incarnation", removed),
		rule("commit: the watermark passes the open epoch too", commit, "watermark", becomes(`= s\.sealed,`, `= s.open,`)),
		part("drain: an epoch is committed although a part of it failed", drain, "failed", becomes(`return failed`, ``)),
	}
}

func settingAside() []mutant {
	return []mutant{
		rule("R6: an epoch is committed although a refused key was not set aside", refusal, "set aside",
			becomes(`r\.setAside\(.*\);`, `error(nil);`)),
		part("R6: an epoch is committed although a locked key was not set aside", flusher, "deferred", becomes(`keys,`, `keys[:0],`)),
		part("aside: the entry is not marked as set aside", aside, "flag", becomes(`true`, `nil`)),
		part("aside: an entry that is set aside counts as clean", entry, "dirty", becomes(`e\.a or `, ``)),
		part("settle: the entry is not compared", settle, "compare", becomes(`e and text == .* then`, `e then`)),
		part("settle: a clean key keeps its old epoch", settle, "clean", becomes(`epoch = '0'`, `epoch = e.epoch`)),
		part("settle: a written key keeps its old epoch", settle, "written", becomes(`e\.a, e\.epoch = nil, s\.open`, `e.a = nil`)),
		part("settle: the number of a lineage is used twice", settle, "renew", removed),
		part("requeue: a key keeps its old epoch", requeue, "epoch", becomes(`e\.a, e\.epoch = nil, s\.open`, `e.a = nil`)),
		part("requeue: a write continues an ended lineage", requeue, "renew", removed),
		part("requeue: a key does not join the open epoch", requeue, "join", removed),
		part("requeue: waiting requests are not told", entry, "requeued",
			becomes(`s\.requeued, s\.changed = s\.open, true`, `s.changed = true`)),
		part("discard: the entry is not compared", discard, "compare", removed),
		part("discard: a row that was read before may be hydrated", discard, "renew", removed),
	}
}

func hydrating() []mutant {
	return []mutant{
		rule("hydrate: no check of the token", hydrate, "token", never),
		part("hydrate: the token lacks the watermark", hydrate, "fresh",
			becomes(`ARGV\[1\] == .*`, `sub(ARGV[1], -#s.open) == s.open`)),
		part("hydrate: the token lacks the open epoch", hydrate, "fresh",
			becomes(`ARGV\[1\] == .*`, `match(ARGV[1], '^%w+') == s.watermark_id`)),
		part("rebase: ended lineages are counted twice", hydrate, "ended lineages", never),
		part("rebase: an entry from before a restart takes the fast path", hydrate, "of this incarnation",
			becomes(`number_of < s\.first or number_of == lineage`, `false`)),
		part("rebase: ended lineages are forgotten", hydrate, "keep", becomes(`e\.p = .*`, `e.p = nil`)),
	}
}

func checking() []mutant {
	return []mutant{
		rule("a read after a lost tail goes back: no entry is unchecked", entry, "unchecked", becomes(`return .* end`, `return false end`)),
		part("plain: a read of an unchecked entry is answered", plain, "checked read", becomes(`checked = .*`, `checked = true`)),
		part("plain: a read of an unchecked entry that was hydrated is answered", plain, "checked hydrated",
			becomes(`checked = .*`, `checked = true`)),
		part("plain: an unchecked entry is written", plain, "checked write", becomes(` and \(number >= .* then`, ` then`)),
		part("check: the entry does not become its newer row", check, "newer", never),
		part("check: the row may be from before another restart", check, "same incarnation", never),
	}
}

func reconciling() []mutant {
	return []mutant{
		rule("reconcile: skipped", repairGo, "reconcile", always),
		part("reconcile: the base is not subtracted", reconcile, "base", becomes(`sum\(v, value, had\)`, `sum(v, value)`)),
		part("reconcile: ended lineages are counted twice", reconcile, "ended lineages", removed),
		part("reconcile: ended lineages are forgotten", reconcile, "keep", becomes(`e\.p = .*`, `e.p = nil`)),
		part("reconcile: an entry that was written meanwhile is changed", reconcile, "compare",
			becomes(` or e\.l ~= .* then`, ` then`)),
		part("reconcile: a later row of the same lineage is not adopted", reconcile, "adopted", never),
		part("adopt: the number of a lineage is used twice", reconcile, "adopt", removed),
	}
}

func recording() []mutant {
	return []mutant{
		rule("history: a write has no record", apply, "record", removed),
		rule("history: records that Postgres lacks are removed", trim, "equal", becomes(` and call\(.*\) == ARGV\[i\] then`, ` then`)),
		rule("history: records are written although the guard keeps the row", columns, "only written", becomes(`written\)`, `rows)`)),
		part("history: the records of a flushed counter stay", flusher, "trim", becomes(`err = .*`, ``)),
		part("history: a rebased counter is flushed without its records", rebase, "read again",
			becomes(`return e\.Recorded`, `return e.Recorded && false`)),
		part("history: a rebase renumbers no records", hydrate, "history", removed),
		part("history: a reconciliation renumbers no records", reconcile, "history", removed),
		part("history: an operation that the row has is recorded again", renumber, "dropped", becomes(` and tonumber.* then`, ` then`)),
		part("history: a record keeps its number when the base is known", renumber, "renumbered",
			becomes(`sum\(n, version, had_n\)`, `n`)),
		part("history: a record keeps its value when the base is known", renumber, "value", becomes(`sum\(v, value, base\)`, `v`)),
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
		part("evict: an entry that was written meanwhile is evicted", evict, "check",
			becomes(`number\(epoch\) <= .* then`, `true then`)),
	}
}

func mapping() []mutant {
	return []mutant{
		rule("mapping: a column is written although the guard kept the row", unlocked, "kept out",
			becomes(`keptOut = append\(keptOut, row\)`, `keptOut, written = append(keptOut, row), append(written, row)`)),
		rule("mapping: the value that a counter started from is not compared", mapped, "start", becomes(`return .* }`, `return false }`)),
		rule("mapping: counters and column are written in two transactions", columns, "one transaction", becomes(`tx,`, `u.store.db,`)),
		rule("mapping: every flush of the first lineage counts as the first", first, "first flush", never),
	}
}

func confirming() []mutant {
	const writepath = "./internal/writepath"
	return []mutant{
		tested("durability: a write is confirmed without its replicas", durable, "replicas", becomes(`int64\(w\.replicas\)`, `0`),
			writepath, "TestWriteWaitsForAReplica"),
		tested("durability: a write is answered before its confirmation", "internal/writepath/durable.go", "confirm",
			becomes(`c, c\.Await\(ctx, r\.until\)`, `c, nil`), writepath, "TestWriteWaitsForAReplica"),
		tested("durability: a repeated write leaves no marker", durable, "marker", never,
			writepath, "TestReplayOnANewConnectionWaitsForItsWrite"),
	}
}

func following() []mutant {
	const cache = "./internal/cache"
	return []mutant{
		tested("R5: a call whose answer was lost is sent again", resend, "refused", becomes(`refusalOf\(.*`, `true`),
			cache, "TestOnlyRefused(Durable)?CallsAreSentAgain"),
		tested("topology: a call that hangs on a former master is not ended", watched, "hung", becomes(`c\.Conn\.Close\(\)`, `c`),
			cache, "TestCallThatHangsOnAFormerMasterEnds"),
		tested("topology: connections to a former master stay in use", watched, "retired", becomes(`c\.retired\.Store\(true\)`, `continue`),
			cache, "TestRefusedCallGoesToWhereTheAddressLeadsNow"),
	}
}
