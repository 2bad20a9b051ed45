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
			"local function mark(e)\n  local tag = home(e)", "local function mark(e)\n  do return end\n  local tag = home(e)",
		},
		{
			"R2: a blind write does not mark its key", apply,
			"    tag = mark(e)\n    of.e, of.b", "    tag = v and not of.u and mark(e) or nil\n    of.e, of.b",
		},
		{
			"R2: marked, but not in the dirty set", apply,
			"local added = pcall('ZADD', unpack(shard))", "local added = 1",
		},
		{
			"R2: marked, but the entry still expires", apply,
			"call('MSET', unpack(writes))", "for k = 1, #writes, 2 do call('SET', writes[k], writes[k + 1], 'KEEPTTL') end",
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
			"if text ~= peeked or new == '' then", "if new == '' then",
		},
		{
			"ack: compares the version, but not the life", ack,
			" and match(rest, ' e(%S+)') == match(more, ' e(%S+)')", "",
		},
		{
			"reconcile: left out", "worker/reconcile.go",
			"if len(ahead) == 0 {", "if len(ahead) >= 0 {",
		},
		{
			"reconcile: the base is not taken away", reconcile,
			"e.v = sum(e.v, value, had)", "e.v = sum(e.v, value)",
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
			"elseif sub(of.e, 1, 8) ~= incarnation() then -- the base stays", "elseif false then --",
		},
	}
}
