-- hydrate.lua brings what Postgres has of some counters into their entries: it creates the entry of a cold key, and
-- gives its base to an entry that was written while the base was unknown (u). An entry that is complete is left alone.
--
-- The generation is that of the shard from before Postgres was asked. It changes with every ack, so when it is still
-- the same, no flush has been completed in between and what was read is what Postgres has. Without this check, a slow
-- reader could bring back an old state of a key that was meanwhile written, flushed and evicted.
--
-- An entry that is rebased may come from before a restart of Redis, and may have been rebased and flushed already, after
-- what that Redis still knows. Lineages tell: they are the numbers of the entry's lives, and so the times when these began. A
-- row whose lineage began no earlier than a life of before the restart has the writes of that life.
--
-- KEYS[i]   entry {aw:07}:c:<key>; on a cluster dirty and gen of the shard follow (see apply.lua)
-- ARGV[1]   TTL of a created entry, ms
-- ARGV[2]   TTL of a created entry when Postgres has no row, ms
-- then for each key five: generation, value, version, state: "r" row, "x" tombstone, "-" no row (value, version "0"), lineage
--
-- Reply: a letter for each key: y done (or was complete), s stale generation: read Postgres again, o the sum of base and
-- unsynced operations would overflow: nothing changed, e not an entry.

local out = {}

local function create(name, tag, value, version, state)
  local text = value .. ' ' .. version .. (state == 'r' and '' or ' x')
  -- A key whose entry was deleted by hand may be dirty still.
  if call('ZSCORE', tag .. ':dirty', sub(name, #tag + 4)) then
    call('SET', name, text)
  else
    call('SET', name, text, 'PX', state == '-' and ARGV[2] or ARGV[1])
  end
  return 'y'
end

-- u1: value and version are counted from the base; u2: the value was set or deleted since, only the version is.
local function rebase(name, e, value, version, state, lineage)
  local life, lives = e.e or '', e.p or ''
  local counts = e.u == '1' -- from the base
  -- Since the restart; or since a copy of it came back that somebody had made. (A lower number alone proves nothing: after
  -- a failover it may come from a clock that is behind.)
  local untouched = sub(life, 1, 8) ~= incarnation() or sub(life, 9) == lineage
  if untouched then lives = fmt('%s;%s,%s,%s', lives, sub(life, 9), e.v, e.n) end
  local had, had_n, last = '0', '0', ''
  for began, with, with_n in gmatch(lives, ';(%d+),([^,;]+),(%d+)') do
    if tonumber(began) <= tonumber(lineage) then
      had, had_n, last = with, with_n, began
      counts = with ~= 'set'
    end
  end
  if counts then
    e.v = sum(e.v, value, had)
    if not e.v then return 'o' end
  end
  e.n = sum(e.n, version, had_n)
  if not e.n then return 'o' end
  if untouched and last ~= '' and last == sub(life, 9) then -- the row is what this entry has become
    e.x = state == 'x' and '' or nil
  end
  -- It keeps its number: no flush can have had it while the base was unknown.
  e.u, e.b, e.w = nil, version, counts and value or nil
  -- A late flush of a life that the row does not have yet may still come.
  local later = {}
  for began, with, with_n in gmatch(e.p or '', ';(%d+),([^,;]+),(%d+)') do
    if tonumber(began) > tonumber(lineage) then
      if counts and with ~= 'set' then with = sum(with, value, had) end
      if with then later[#later + 1] = fmt(';%s,%s,%s', began, with, sum(with_n, version, had_n)) end
    end
  end
  e.p = #later > 0 and table.concat(later) or nil
  put(name, e)
  return 'y'
end

for i = 1, (#ARGV - 2) / 5 do
  local name, at = KEYS[i], 2 + (i - 1) * 5
  local gen, value, version, state = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local tag = sub(name, 1, (find(name, '}', 1, true)))
  local text = pcall('GET', name)
  local e = type(text) == 'string' and decode(text)
  if type(text) == 'table' then
    if not find(text.err, 'WRONGTYPE', 1, true) then error(text.err, 0) end
    out[i] = 'e'
  elseif text and not e then
    out[i] = 'e'
  elseif e and not e.u then
    out[i] = 'y'
  elseif call('GET', tag .. ':gen') ~= gen then
    out[i] = 's'
  elseif e then
    out[i] = rebase(name, e, value, version, state, ARGV[at + 5])
  else
    out[i] = create(name, tag, value, version, state)
  end
end

return table.concat(out)
