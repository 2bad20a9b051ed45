package main

// mutant is a rule of the design, broken on purpose: old becomes new, in one place of one file.
type mutant struct {
	name string
	file string
	old  string
	new  string
}

// rules are the names of those mutants that CI tries: the rules themselves, which the machine notices within some 20 runs.
func rules() []string {
	return []string{
		"R2: marked, but not in the dirty set", "R3: no guard", "ack: clears without comparing", "reconcile: left out",
	}
}

// mutants are the lines that everything else relies on.
func mutants() []mutant {
	const (
		apply     = "internal/cache/apply.lua"
		ack       = "internal/cache/ack.lua"
		hydrate   = "internal/cache/hydrate.lua"
		reconcile = "internal/cache/reconcile.lua"
		upsert    = "internal/store/upsert.go"
	)
	return []mutant{
		{
			"R2: a write does not mark its key", apply,
			"local backlog = mark(tag, entry, key)", "local backlog = 0",
		},
		{
			"R2: a blind write does not mark its key", apply,
			"local backlog = mark(tag, entry, key)", "local backlog = v and not u and mark(tag, entry, key) or 0",
		},
		{
			"R2: marked, but not in the dirty set", apply,
			"local added = pcall('ZADD', dirty, 'NX', now(), key)", "local added = call('ZSCORE', dirty, key) and 0 or 1",
		},
		{
			"R2: marked, but the entry still expires", apply,
			"call('PERSIST', entry)", "",
		},
		{
			"R3: no guard", upsert,
			"\nWHERE counters.version < CASE WHEN counters.lineage = EXCLUDED.lineage THEN EXCLUDED.version ELSE EXCLUDED.base + 1 END`",
			"`",
		},
		{
			"R3: the guard looks at versions only", upsert,
			"CASE WHEN counters.lineage = EXCLUDED.lineage THEN EXCLUDED.version ELSE EXCLUDED.base + 1 END", "EXCLUDED.version",
		},
		{
			"ack: clears without comparing", ack,
			"if n == committed and not u and (e[3] or '') == life then", "if n then",
		},
		{
			"ack: compares the version, but not the life", ack,
			"if n == committed and not u and (e[3] or '') == life then", "if n == committed and not u then",
		},
		{
			"reconcile: left out", "worker/reconcile.go",
			"if len(ahead) == 0 {", "if len(ahead) >= 0 {",
		},
		{
			"reconcile: the base is not taken away", reconcile,
			"if had ~= 'set' and not shift(entry, value, had)", "if had ~= 'set' and not shift(entry, value, '0')",
		},
		{
			"reconcile: earlier lives are ignored", reconcile,
			"if tonumber(began) <= tonumber(lineage) then had, had_n = with, with_n end", "",
		},
		{
			"hydrate: no generation check", hydrate,
			"elseif call('GET', tag .. ':gen') ~= gen then", "elseif false then",
		},
		{
			"hydrate: earlier lives are ignored, and added twice", hydrate,
			"if tonumber(began) <= tonumber(lineage) then", "if false then",
		},
		{
			"apply: a second life takes the first one's state as its base", apply,
			"elseif life then -- the base stays", "elseif false then --",
		},
	}
}
